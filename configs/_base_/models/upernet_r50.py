"""mmseg's UperNet R50 for ADE20K's 150 classes, on mmpretrain's ResNet-50 (mmseg: ResNetV1c).

The backbone is the plain ResNet, as in pre-training; heads and SyncBN are mmseg's.
"""

_base_ = '../mmseg/upernet_r50.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hgkd_r50_mae/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
