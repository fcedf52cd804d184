"""Mask R-CNN with a ResNet-18 FPN on COCO, 1x (90 000 steps), from a student of this project.

Reproduces: no known row. mask-rcnn_r50_fpn_1x_coco.py for another student; layer decay has a
            group a stage (inferred: SparK has no recipe for this network).
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r18_fpn_1x_coco.py 8
Data:       data/coco, as mmdet expects it.
Weights:    work_dirs/hgkd_r18_mae/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='work_dirs/hgkd_r18_mae/epoch_300.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(blocks_per_group=None))
