"""UperNet R50 on ADE20K at 512 x 512, 80 000 steps, from ImageNet labels: a baseline.

Reproduces: no known row. upernet_r50_80k_ade20k-512x512.py with torchvision's supervised ResNet-50
            (IMAGENET1K_V1, fetched at the first start) and everything else the same.
Run:        bash tools/dist_train.sh configs/seg/upernet_r50_80k_ade20k-512x512_supervised.py 8
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_r50_80k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')
    )
)
