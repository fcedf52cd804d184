"""UperNet with ViT-B/16 on ADE20K at 512 x 512, 160 000 steps, from MAE: the twin to compare with.

Reproduces: mmseg's 48.13 mIoU for MAE, but for the relative positions and layer scale that its
            network adds (published; not run here). upernet_vit-b_160k_ade20k-512x512.py from
            mmpretrain's MAE of 1600 epochs, the teacher of token relations, fetched at the first
            start.
Run:        bash tools/dist_train.sh configs/seg/upernet_vit-b_160k_ade20k-512x512_mae.py 8 --amp
Data:       data/ade/ADEChallengeData2016, as mmseg expects it.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_vit-b_160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth'
        )
    )
)
