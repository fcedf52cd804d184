"""Mask R-CNN with a ResNet-101 FPN on COCO, 1x (90 000 steps), from a student of this project.

Reproduces: no known row. mask-rcnn_r50_fpn_1x_coco.py for another student. SparK's code
            has groups for this depth (three blocks of res4 each, 12 and the heads) and no config:
            layer decay .8 is inferred, from its change of .7 to .8 on ImageNet.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r101_fpn_1x_coco.py 8
Data:       data/coco, as mmdet expects it.
Weights:    work_dirs/hgkd_r101_mae/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='work_dirs/hgkd_r101_mae/epoch_300.pth'))
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
