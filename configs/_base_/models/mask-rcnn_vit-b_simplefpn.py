"""ViTDet's Mask R-CNN, built from mmdet's parts on mmpretrain's plain VisionTransformer, ViT-B/16.

Stated in Detectron2's code (docs/sources.md 4.5): the simple feature pyramid on the last block's
         output without a norm, layer norms in pyramid, box and mask head, an RPN of two
         convolutions, a box head of four and one linear layer, drop path 0.1
Ours:    attention is global in all twelve blocks; ViTDet has windows of 14 x 14 tokens in eight,
         which save time and memory (an image of 800 x 1333 px has 4200 tokens). There are no
         relative positions, and the class token is kept among the tokens. All three follow the
         unmodified pre-trained transformer, so every backbone weight is loaded from the file
Norm:    final_norm=False as in ViTDet; the file's ln1 is not loaded
Size:    img_size is that of pre-training; the network resizes the position embedding per step
"""

_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hybrid_vit-b_mae-clip/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(_delete_=True, type='SimpleFPN', in_channels=768, norm_cfg=norm_cfg),
    # Float...: what mmdet's own do, and --amp works (hgkd_mm/detection.py).
    rpn_head=dict(type='FloatRPNHead', num_convs=2),
    roi_head=dict(
        bbox_roi_extractor=dict(type='FloatRoIExtractor'),
        mask_roi_extractor=dict(type='FloatRoIExtractor'),
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
