"""ImageNet-1K for pre-training at 224 px, with SparK's augmentation.

Layout:       mmpretrain's, data/imagenet/train/<wnid>/*.JPEG; meta/train.txt if it exists
Augmentation: RandomResizedCrop of area 0.67 to 1, bicubic, and a horizontal flip (SparK's code,
              pretrain/utils/imagenet.py)
Batch:        256 per GPU; 8 GPUs make 2048
Elsewhere:    --cfg-options train_dataloader.dataset.data_root=DIR
"""

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet/',
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
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
