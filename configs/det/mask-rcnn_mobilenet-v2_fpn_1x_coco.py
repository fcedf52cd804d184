"""Mask R-CNN with a MobileNetV2 FPN on COCO, 1x (90 000 steps), from a student of this project.

Reproduces: no known row. mask-rcnn_r50_fpn_1x_coco.py for another student; layer decay has one
            group per stage, at 0.7 because there are two more than in ResNet-50 (inferred).
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_mobilenet-v2_fpn_1x_coco.py 8
Data:       data/coco, in mmdet's layout.
Weights:    work_dirs/hgkd_mobilenet-v2_mae/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

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
    neck=dict(in_channels=[24, 32, 96, 1280]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7, blocks_per_group=None))
