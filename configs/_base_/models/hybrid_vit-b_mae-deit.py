"""Hybrid Distill: ViT-B/16 from the MAE of mmpretrain's zoo and from DeiT.

Student:  mmpretrain's ViT-B/16, drop path 0.1 (TinyMIM's, docs/sources.md 2.7)
Teachers: MAE, 1600 epochs on ImageNet-1K; its authors' DeiT-B, supervised, 300 epochs
Losses:   features of DeiT + token relations of MAE, weights 1 (stated); layers, distance and
          masking are inferred: docs/sources.md 2.3 to 2.5
"""

model = dict(
    type='HybridDistill',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='raw',
        drop_path_rate=0.1,
    ),
    teachers=dict(
        cl=dict(
            type='TIMMTeacher',
            name='deit_base_patch16_224.fb_in1k',
            checkpoint='https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth',
        ),
        mim=dict(
            type='MIMTeacher',
            family='mae',
            arch='b',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth',
        ),
    ),
    heads=dict(
        feat=dict(type='FeatureDistillationHead', teacher='cl'),
        relation=dict(
            type='TokenRelationHead',
            teacher='mim',
            student_layers=[5, 8, 11],
            teacher_layers=[5, 8, 11],
            with_cls=True,
        ),
    ),
    masking=dict(keep_ratio=0.7),
)
