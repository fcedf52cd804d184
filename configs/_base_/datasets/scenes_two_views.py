"""Scenes for contrastive pre-training: two crops of 96 px, each with its own color augmentation.

MoCo v3's augmentations except blur and solarization, and with larger crops: a crop of 0.08 of an
image of 96 px shows little of an object.
"""

_base_ = './scenes_pretrain.py'

_view = [
    dict(
        type='RandomResizedCrop',
        scale=96,
        crop_ratio_range=(0.3, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(
        type='RandomApply',
        transforms=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        prob=0.8,
    ),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989),
    ),
    dict(type='RandomFlip', prob=0.5),
]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='MultiView', num_views=[2], transforms=[_view]),
            dict(type='PackInputs'),
        ]
    )
)
