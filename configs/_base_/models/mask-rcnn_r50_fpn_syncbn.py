"""mmdet's Mask R-CNN R50-FPN with SparK's changes, on mmpretrain's ResNet-50.

Stated (SparK's downstream_d2/configs, docs/sources.md 3.5): nothing frozen, synchronized batch norm
in backbone, FPN and both heads, a box head of four convolutions and one linear layer.
"""

_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hgkd_r50_mae/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(norm_cfg=norm_cfg),
    # Float...: what mmdet's own do, and --amp works (hgkd_mm/detection.py).
    rpn_head=dict(type='FloatRPNHead'),
    roi_head=dict(
        bbox_roi_extractor=dict(type='FloatRoIExtractor'),
        mask_roi_extractor=dict(type='FloatRoIExtractor'),
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
