"""Small-scale Hybrid Distill on Scenes: a ViT from a small MAE and a small supervised ViT.

Reproduces: no row of the paper; hybrid_vit-b_mae-deit.py at 96 px, with its losses and masking.
Run:        python tools/train.py configs/pretrain/hybrid_vit_scenes.py
            after python tools/make_scenes.py --out data/scenes
Labels:     its second teacher was trained with them, as DeiT was (assets/README.md).
Hardware:   2 CPU cores, no GPU.
Time:       docs/analysis.md
Metric:     docs/analysis.md
"""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/scenes_pretrain.py']

train_dataloader = dict(batch_size=32, num_workers=1)
max_epochs = 12
_size = dict(
    arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
    img_size=96,
    patch_size=16,
)

model = dict(
    type='HybridDistill',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type='VisionTransformer', out_type='raw', **_size),
    teachers=dict(
        cl=dict(
            type='MIMTeacher', family='vit', checkpoint='assets/vit_scenes.safetensors', **_size
        ),
        mim=dict(
            type='MIMTeacher', family='mae', checkpoint='assets/mae_scenes.safetensors', **_size
        ),
    ),
    heads=dict(
        feat=dict(type='FeatureDistillationHead', teacher='cl'),
        relation=dict(
            type='TokenRelationHead',
            teacher='mim',
            student_layers=[2, 3, 5],
            teacher_layers=[2, 3, 5],
            with_cls=True,
        ),
    ),
    masking=dict(keep_ratio=0.7),
)

_no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(
    type='BF16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(pos_embed=_no_decay, cls_token=_no_decay),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
