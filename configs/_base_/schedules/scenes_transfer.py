"""Short trainings on Scenes, the same for all three tasks and for every initialization.

AdamW with warm-up and cosine per iteration, in float32; the transfer table uses bfloat16 where the
CPU supports it. No layer decay: it would slow the networks that start from random weights, and the
comparison needs a single recipe.
"""

max_iters = 200

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=max_iters, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict()
test_cfg = dict()
# Under names of their own, because two bases of a config may not share a key:
# default_hooks = _base_.transfer_hooks, log_processor = _base_.transfer_log
transfer_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=max_iters, save_optimizer=False
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
transfer_log = dict(by_epoch=False)
