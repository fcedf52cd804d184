"""Mask R-CNN on COCO with ViT-B/16, 1x, from ImageNet labels: the twin to compare with.

Reproduces: no known row. mask-rcnn_vit-b_simplefpn_1x_coco.py from DeiT-B, trained with labels by
            its authors (mmpretrain's copy, fetched at the first start), and everything else the
            same.
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_vit-b_simplefpn_1x_coco_supervised.py 8
Data:       data/coco, as mmdet expects it.
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_vit-b_simplefpn_1x_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/'
            'deit-base_3rdparty_pt-16xb64_in1k_20211124-6f40c188.pth'
        )
    )
)
