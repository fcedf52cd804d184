"""MoCo v3 on Scenes: a second teacher, trained without labels, for the hybrids there.

Reproduces: no row of a paper; small-scale MoCo v3 (ICCV 2021), by mmpretrain's own MoCoV3. It
            starts from the weights of mae_scenes.py, since a ViT that starts from random weights
            learns little from 12000 images; blur and solarization are omitted at 96 px.
Run:        python tools/train_teacher.py --kind contrastive  (makes the data, trains, exports)
Hardware:   2 CPU cores, no GPU.
Time:       assets/README.md
Metric:     assets/README.md
"""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/scenes_two_views.py']

max_epochs = 6
width = 192
temperature = 0.2
_mlp = dict(
    hid_channels=1024,
    out_channels=128,
    with_bias=False,
    with_last_bn=True,
    with_last_bn_affine=False,
    with_last_bias=False,
    with_avg_pool=False,
)

model = dict(
    type='MoCoV3',
    base_momentum=0.01,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='MoCoV3ViT',
        arch=dict(embed_dims=width, num_layers=6, num_heads=3, feedforward_channels=4 * width),
        img_size=96,
        patch_size=16,
        stop_grad_conv1=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='assets/mae_scenes.safetensors',
            prefix='backbone.',
        ),
    ),
    neck=dict(type='NonLinearNeck', in_channels=width, num_layers=3, **_mlp),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(type='NonLinearNeck', in_channels=128, num_layers=2, **_mlp),
        loss=dict(type='CrossEntropyLoss', loss_weight=2 * temperature),
        temperature=temperature,
    ),
)
train_dataloader = dict(batch_size=96, num_workers=1, drop_last=True)
optim_wrapper = dict(
    type='BF16OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=100, by_epoch=False),
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
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=2, max_keep_ckpts=2))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    # It becomes a copy of the backbone in the first step.
    dict(type='PretrainedReportHook', allow_missing=['momentum_encoder.*']),
]
