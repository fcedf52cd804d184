"""Mask R-CNN R50-FPN on COCO, 3x, from supervised ImageNet weights: a baseline.

Reproduces: no known row. mask-rcnn_r50_fpn_3x_coco.py with torchvision's supervised ResNet-50
            (IMAGENET1K_V1, fetched at the first start) and everything else the same.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r50_fpn_3x_coco_supervised.py 8
Data:       data/coco, in mmdet's layout.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_r50_fpn_3x_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')
    )
)
