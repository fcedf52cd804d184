"""mmseg's UperNet for MAE's ViT-B, on mmpretrain's plain VisionTransformer, 150 classes.

Stated in mmseg (docs/sources.md 4.6): blocks 3, 5, 7 and 11 (from 0) as four maps of stride 16,
         Feature2Pyramid to strides 4 to 32, heads of 768 and 256 channels, drop path 0.1, sliding
         windows of 512 every 341 px in testing
Ours:    mmseg's MAE adds relative positions and layer scale, whose weights no pre-training of this
         project has; the plain pre-trained transformer has neither
Norm:    final_norm=False as in mmseg. mmpretrain's ln1 would normalize only the last of the four
         maps; it is in the file but is not loaded
Size:    img_size is that of pre-training, so that the position embedding is the file's; the network
         resizes it per step. mmseg resizes it once, during loading, and trains 32 x 32 of them
"""

_base_ = '../mmseg/upernet_mae.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hybrid_vit-b_mae-clip/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768, num_classes=150),
    auxiliary_head=dict(in_channels=768, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
