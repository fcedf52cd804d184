"""ImageNet-1K for fine-tuning at 224 px: mmpretrain's loaders with SparK's augmentation.

Training:   RandomResizedCrop bicubic, flip, TrivialAugmentWide, random erasing with noise of a
            quarter of the images (SparK's code, downstream_imagenet/data.py; torchvision's
            TrivialAugmentWide as in mmpretrain's configs/spark)
Validation: short edge 236, center 224 (0.95), bicubic: the same file
Batch:      256 per GPU; 8 GPUs make 2048
"""

_base_ = 'mmpretrain::_base_/datasets/imagenet_bs256_rsb_a12.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/TrivialAugmentWide', interpolation='bicubic'),
    dict(type='PILToNumpy', to_bgr=True),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    num_workers=8, persistent_workers=True, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=8, persistent_workers=True, dataset=dict(type='LabelledImageNet'))
test_dataloader = val_dataloader
