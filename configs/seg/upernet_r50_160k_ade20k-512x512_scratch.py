"""UperNet R50 on ADE20K at 512 x 512, 160 000 steps, from random weights: a baseline.

Reproduces: no known row. upernet_r50_160k_ade20k-512x512.py without pre-training and, since there
            is nothing to preserve, without layer decay (inferred).
Run:        bash tools/dist_train.sh configs/seg/upernet_r50_160k_ade20k-512x512_scratch.py 8
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_r50_160k_ade20k-512x512.py'

# What mmpretrain's networks do unless told otherwise.
model = dict(
    backbone=dict(
        init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ]
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
