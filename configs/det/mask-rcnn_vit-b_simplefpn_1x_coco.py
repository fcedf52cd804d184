"""Mask R-CNN on COCO with ViT-B/16 and ViTDet's pyramid, 1x (90 000 steps), from Hybrid Distill.

Reproduces: no known row. Hybrid Distill's recipe is not known, except that it is shorter than the
            100 epochs of MAE's and ViTDet's, so its numbers are below theirs. ViTDet's network and
            optimization; all values, with the changes, are in
            configs/_base_/models/mask-rcnn_vit-b_simplefpn.py (attention is global in every block)
            and configs/_base_/schedules/adamw_vit_coco_90k.py. Images as for this project's ResNets
            (inferred: ViTDet's large jitter is for long trainings).
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_vit-b_simplefpn_1x_coco.py 8 --amp
Data:       data/coco, in mmdet's layout.
Weights:    work_dirs/hybrid_vit-b_mae-clip/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run. Box and mask AP every 5000 steps.
To compare: from MAE and from labels, docs/detection.md
"""

_base_ = [
    '../_base_/models/mask-rcnn_vit-b_simplefpn.py',
    '../_base_/datasets/coco_ms480-896.py',
    '../_base_/schedules/adamw_vit_coco_90k.py',
    '../_base_/det_runtime.py',
]
