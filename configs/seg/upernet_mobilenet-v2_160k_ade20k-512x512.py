"""UperNet with a MobileNetV2 on ADE20K at 512 x 512, 160 000 steps, from a student of this project.

Reproduces: no known row. upernet_r50_160k_ade20k-512x512.py for another student.
Run:        bash tools/dist_train.sh configs/seg/upernet_mobilenet-v2_160k_ade20k-512x512.py 8
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Weights:    work_dirs/hgkd_mobilenet-v2_mae/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_r50_160k_ade20k-512x512.py'

model = dict(
    # The last map of each stride: 4, 8, 16, 32.
    backbone=dict(
        _delete_=True,
        type='mmpretrain.MobileNetV2',
        out_indices=(1, 2, 4, 7),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hgkd_mobilenet-v2_mae/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[24, 32, 96, 1280]),
    auxiliary_head=dict(in_channels=96),
)
