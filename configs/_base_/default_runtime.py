"""Settings shared by every run: hooks, logging, seeds. Leaf configs override single keys.

TensorBoard is on; for Weights & Biases add ``dict(type='WandbVisBackend')`` to
``vis_backends`` (MLflow, ClearML, Neptune, DVCLive and Aim: MMEngine's other backends).
"""

default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['mmpretrain.models', 'hgkd_mm.models', 'hgkd_mm.datasets', 'hgkd_mm.engine'],
    allow_failed_imports=False,
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [dict(type='NonFiniteLossHook', interval=50)]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
# Every rank draws masks and drop path of its own; with one seed for all they would be the same.
randomness = dict(seed=0, diff_rank_seed=True)
