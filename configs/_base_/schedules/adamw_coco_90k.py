"""SparK's optimization on COCO (docs/sources.md 3.5): 16 images per step, 90 000 steps, "1x".

Stated:  AdamW 2.5e-4, weight decay 1e-4 and none for norms (Detectron2's default), learning rate
         times 0.6 per layer from the heads down (groups as in its code), 1000 warm-up steps from
         0.01, times 0.25 after 60 000 and 80 000 steps, evaluation every 5000
Ours:    MMEngine's running averages instead of SparK's PreciseBN: mmpretrain's PreciseBNHook would
         give the mask head the first 100 proposals of a batch instead of its training regions
Batch:   for another size, --auto-scale-lr scales the learning rate linearly (inferred)
"""

max_iters = 90_000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2.5e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.6, blocks_per_group=(3, 4, 3, 3), norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        milestones=[60_000, 80_000],
        gamma=0.25,
        by_epoch=False,
        begin=0,
        end=max_iters,
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)
