"""UperNet with a ResNet-101 on ADE20K at 512 x 512, 160 000 steps, from a student of this project.

Reproduces: no known row. upernet_r50_160k_ade20k-512x512.py for another student.
Run:        bash tools/dist_train.sh configs/seg/upernet_r101_160k_ade20k-512x512.py 8
Data:       data/ade/ADEChallengeData2016, as mmseg expects it.
Weights:    work_dirs/hgkd_r101_mae/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_r50_160k_ade20k-512x512.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='work_dirs/hgkd_r101_mae/epoch_300.pth'))
)
