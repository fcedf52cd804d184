"""Mask R-CNN R50-FPN on COCO, 3x (270 000 steps), from a student of this project.

Reproduces: no known row. mask-rcnn_r50_fpn_1x_coco.py with Detectron2's 3x instead of its 1x:
            270 000 steps, drops after 210 000 and 250 000 (stated there); keeping the rest of
            SparK's recipe for 3x is inferred.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r50_fpn_3x_coco.py 8
Data:       data/coco, in mmdet's layout.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
Baselines:  mask-rcnn_r50_fpn_3x_coco_scratch.py, mask-rcnn_r50_fpn_3x_coco_supervised.py
"""

_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

max_iters = 270_000
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], milestones=[210_000, 250_000], end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
