"""mmpretrain's ResNet-50 classifier with a backbone from this project's pre-training.

Other checkpoint: --cfg-options model.backbone.init_cfg.checkpoint=FILE
"""

_base_ = 'mmpretrain::_base_/models/resnet50.py'

model = dict(
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hgkd_r50_mae/epoch_300.pth',
            prefix='backbone.',
        )
    ),
)
