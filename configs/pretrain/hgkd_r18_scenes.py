"""Small-scale H-GKD on Scenes: ResNet-18 from a small MAE teacher; the quickstart's training.

Reproduces: no row of the paper; the geometry of the flagship (hgkd_r50_mae.py) at 96 px:
            one mask cell (32 px) = 2 x 2 teacher tokens (16 px), 4 of 9 cells visible.
Run:        bash tools/quickstart.sh, or, after python tools/make_scenes.py,
            python tools/train.py configs/pretrain/hgkd_r18_scenes.py
Hardware:   2 CPU cores, no GPU.
Time:       about 6 minutes while the baseline trains as well.
Metric:     four epochs: the README's second table.
"""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/scenes_pretrain.py']

# Small batches, because a run this short is limited by its number of steps.
train_dataloader = dict(batch_size=32, num_workers=1)
max_epochs = 4

model = dict(
    type='HGKD',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3), zero_init_residual=False),
    neck=dict(type='UNetDecoder', width=256, out_stride=16),
    teachers=dict(
        mim=dict(
            type='MIMTeacher',
            family='mae',
            arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
            img_size=96,
            patch_size=16,
            checkpoint='assets/mae_scenes.safetensors',
            # The student's cells only: what lies elsewhere can hardly be guessed in so few steps.
            teacher_view='visible',
        )
    ),
    heads=dict(
        # Whitened: tokens of a MAE trained so briefly have a cosine of .9 and more, and its
        # embeddings an effective rank of 6.
        feat=dict(
            type='FeatureImitationHead',
            teacher='mim',
            target_norm=dict(type='whiten', rank=64),
        ),
        sim=dict(
            type='SimilarityDistributionHead',
            teacher='mim',
            queue_size=2048,
            target_norm=dict(type='whiten'),
        ),
    ),
    mask=dict(cell=32, ratio=0.6),
)

optim_wrapper = dict(
    type='BF16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
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
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
