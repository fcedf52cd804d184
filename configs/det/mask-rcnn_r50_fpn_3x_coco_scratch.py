"""Mask R-CNN R50-FPN on COCO, 3x, from random weights: a baseline.

Reproduces: no known row. mask-rcnn_r50_fpn_3x_coco.py without pre-training and, since there is
            nothing to preserve, without layer decay (inferred).
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r50_fpn_3x_coco_scratch.py 8
Data:       data/coco, in mmdet's layout.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_r50_fpn_3x_coco.py'

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
