"""Mask R-CNN on COCO with ViT-B/16, 1x, from MAE: the twin to compare with.

Reproduces: no known row. mask-rcnn_vit-b_simplefpn_1x_coco.py from mmpretrain's MAE of 1600 epochs,
            the teacher of token relations, fetched at the first start. Hybrid Distill's own run
            of MAE has 48.4 box and 42.6 mask AP, as a review of the paper reports, by a recipe
            that is not known; nothing was run here.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_vit-b_simplefpn_1x_coco_mae.py 8 --amp
Data:       data/coco, as mmdet expects it.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_vit-b_simplefpn_1x_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth'
        )
    )
)
