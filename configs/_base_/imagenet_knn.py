"""kNN accuracy of the frozen student on ImageNet-1K, every 20 epochs.

Use it: custom_hooks = [*_base_.custom_hooks, _base_.knn_hook], together with default_runtime.py
"""

_dataset = dict(
    type='LabelledImageNet',
    data_root='data/imagenet/',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=224),
        dict(type='PackInputs'),
    ],
)
knn_hook = dict(
    type='KNNEvalHook',
    train_dataset=dict(split='train', **_dataset),
    val_dataset=dict(split='val', **_dataset),
    interval=20,
    max_train_samples=100_000,
    num_workers=8,
)
