"""A small supervised ViT on Scenes: the second teacher of the hybrids there.

Reproduces: no row of a paper; a counterpart of DeiT, at the size of mae_scenes.py. It starts from
            that MAE's weights, since a ViT that starts from random weights learns little from 12000
            images (top-1 16.6 % after 5 epochs of 30; chance is 8.3 %).
Run:        python tools/train_teacher.py --kind supervised  (makes the data, trains, exports)
Hardware:   2 CPU cores, no GPU.
Time:       assets/README.md
Metric:     assets/README.md
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/scenes_pretrain.py',
    '../_base_/datasets/scenes_cls.py',
]

max_epochs = 10
width = 192

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=12
    ),
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=width, num_layers=6, num_heads=3, feedforward_channels=4 * width),
        img_size=96,
        patch_size=16,
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='assets/mae_scenes.safetensors',
            prefix='backbone.',
        ),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=12,
        in_channels=width,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)

train_dataloader = dict(batch_size=64, num_workers=1, drop_last=True)
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=_base_.cls_val_dataset,
)
val_evaluator = dict(type='Accuracy', topk=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=150, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=5))
custom_hooks = [dict(type='NonFiniteLossHook', interval=50), dict(type='PretrainedReportHook')]
