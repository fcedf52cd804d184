"""MAE on Scenes: the small teacher of the quickstart, by mmpretrain's own MAE.

Reproduces: no row of a paper; small-scale MAE (CVPR 2022). The geometry of the token grid is that
            of the flagship's teacher: one mask cell of the student = 2 x 2 tokens.
Run:        python tools/train_teacher.py  (makes the data, trains, exports the weights)
Hardware:   2 CPU cores, no GPU.
Time:       66 minutes on one thread (assets/README.md).
Metric:     the teacher's row in the README's quickstart table.
"""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/scenes_pretrain.py']

max_epochs = 60
width = 192

model = dict(
    type='MAE',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=width, num_layers=6, num_heads=3, feedforward_channels=4 * width),
        img_size=96,
        patch_size=16,
        mask_ratio=0.75,
    ),
    neck=dict(
        type='MAEPretrainDecoder',
        num_patches=36,
        patch_size=16,
        embed_dim=width,
        decoder_embed_dim=96,
        decoder_depth=2,
        decoder_num_heads=3,
    ),
    head=dict(
        type='MAEPretrainHead',
        norm_pix=True,
        patch_size=16,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    ),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)

train_dataloader = dict(batch_size=64, num_workers=1, drop_last=True)
_no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            ln=_no_decay,
            bias=_no_decay,
            pos_embed=_no_decay,
            mask_token=_no_decay,
            cls_token=_no_decay,
        )
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=300, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=1e-6,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=3, max_keep_ckpts=2))
