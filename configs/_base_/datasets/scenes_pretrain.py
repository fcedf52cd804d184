"""Scenes for pre-training: crops of 96 px from the 128 px images of the embedded data set.

Make it:   python tools/make_scenes.py --out data/scenes
Elsewhere: --cfg-options train_dataloader.dataset.data_root=DIR
"""

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='LabelledFolder',
        data_root='data/scenes/',
        data_prefix='train',
        with_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomResizedCrop',
                scale=96,
                crop_ratio_range=(0.4, 1.0),
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
