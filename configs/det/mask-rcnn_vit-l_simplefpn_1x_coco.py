"""Mask R-CNN on COCO with ViT-L/16 and ViTDet's pyramid, 1x (90 000 steps), from Hybrid Distill.

Reproduces: no known row. mask-rcnn_vit-b_simplefpn_1x_coco.py for another student, with ViTDet's
            layer decay 0.8 and drop path 0.4 for this size (stated in its code, for 100 epochs;
            their suitability for 1x is inferred).
Run:        bash tools/dist_train.sh configs/det/mask-rcnn_vit-l_simplefpn_1x_coco.py 8 --amp
Data:       data/coco, in mmdet's layout.
Weights:    work_dirs/hybrid_vit-l_mae-clip/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './mask-rcnn_vit-b_simplefpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='work_dirs/hybrid_vit-l_mae-clip/epoch_300.pth'),
    ),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
