"""UperNet with ViT-B/16 on ADE20K at 512 x 512, 160 000 steps, from ImageNet labels: a twin.

Reproduces: no known row. upernet_vit-b_160k_ade20k-512x512.py from DeiT-B, trained with labels by
            its authors (mmpretrain's copy, fetched at the first start), and everything else the
            same.
Run:        bash tools/dist_train.sh configs/seg/upernet_vit-b_160k_ade20k-512x512_supervised.py 8
Data:       data/ade/ADEChallengeData2016, as mmseg expects it.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_vit-b_160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/'
            'deit-base_3rdparty_pt-16xb64_in1k_20211124-6f40c188.pth'
        )
    )
)
