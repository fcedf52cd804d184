"""Mask R-CNN R50-FPN on COCO, 1x (90 000 steps), from a student of this project.

Reproduces: SparK's COCO recipe for ResNet-50 in mmdet (docs/sources.md 3.5), translated from its
            Detectron2 config; all values are in configs/_base_/schedules/adamw_coco_90k.py and
            configs/_base_/models/mask-rcnn_r50_fpn_syncbn.py. H-GKD's own is not known.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_r50_fpn_1x_coco.py 8
Data:       data/coco, in mmdet's layout.
Weights:    work_dirs/hgkd_r50_mae/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run. Box and mask AP every 5000 steps.
Baselines:  mask-rcnn_r50_fpn_1x_coco_scratch.py, mask-rcnn_r50_fpn_1x_coco_supervised.py
"""

_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_ms480-896.py',
    '../_base_/schedules/adamw_coco_90k.py',
    '../_base_/det_runtime.py',
]
