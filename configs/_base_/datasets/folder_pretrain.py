"""Any folder of unlabeled images for pre-training at 224 px; replaces imagenet_pretrain.py.

Images:       nested, of any size; JPEG, PNG, WebP, BMP, TIFF; gray, alpha, 16-bit, EXIF-rotated
Where:        --cfg-options train_dataloader.dataset.data_root=DIR
Broken files: skipped with a warning; above train_dataloader.dataset.max_broken, the run stops
Other size:   --cfg-options train_dataloader.dataset.pipeline.1.scale=96
"""

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledFolder',
        data_root='data/images/',
        max_broken=0.05,
        pipeline=[
            dict(type='LoadColorImage'),
            dict(
                type='RandomResizedCrop',
                scale=224,
                crop_ratio_range=(0.67, 1.0),
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
