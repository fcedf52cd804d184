"""Mask R-CNN with a ResNet-18 FPN on Scenes: boxes and masks of small objects in small images.

Reproduces: no row of a paper; a small-scale mask-rcnn_r50_fpn_1x_coco.py: FPN and RPN of 64
            channels, anchors of half the size, 64 regions per image, mask head of two convolutions.
            All batch norms are trained, as in the full recipe.
Run:        bash tools/quickstart.sh --transfer, or, after bash tools/quickstart.sh
            and python tools/make_scenes.py --out data/scenes,
            python tools/train.py configs/det/mask-rcnn_r18_fpn_scenes.py
Baseline:   mask-rcnn_r18_fpn_scenes_scratch.py
Hardware:   2 CPU cores, no GPU.
Time:       see docs/transfer.md
Metric:     see docs/transfer.md
"""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/scenes_coco.py',
    '../_base_/schedules/scenes_transfer.py',
]
custom_imports = dict(
    imports=['mmpretrain.models', 'hgkd_mm.engine', 'hgkd_mm.detection'], allow_failed_imports=False
)

norm = dict(type='BN')
classes = 12
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=18,
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/quickstart/hgkd/last.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, norm_cfg=norm),
    # Float...: as mmdet's own, and bfloat16 works (hgkd_mm/detection.py).
    rpn_head=dict(
        type='FloatRPNHead', in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(type='FloatRoIExtractor', out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=classes),
        mask_roi_extractor=dict(type='FloatRoIExtractor', out_channels=64),
        mask_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64, num_classes=classes, norm_cfg=norm
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)
vis_backends = [dict(type='LocalVisBackend')]
custom_hooks = [dict(type='PretrainedReportHook')]
# Twice the steps of the other tasks: boxes and masks are soon found, classes are not.
max_iters = 400
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], T_max=max_iters, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    _base_.transfer_hooks, checkpoint=dict(_base_.transfer_hooks.checkpoint, interval=max_iters)
)
log_processor = _base_.transfer_log
