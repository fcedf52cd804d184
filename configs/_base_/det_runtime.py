"""mmdet's runtime for iteration-based training, with this project's hooks."""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmpretrain.models', 'hgkd_mm.engine', 'hgkd_mm.detection'], allow_failed_imports=False
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3))
custom_hooks = [
    dict(type='mmpretrain.NonFiniteLossHook', interval=50),
    dict(type='PretrainedReportHook'),
]
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
log_processor = dict(by_epoch=False)
