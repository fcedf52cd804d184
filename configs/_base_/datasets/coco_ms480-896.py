"""COCO 2017 with mmdet's own base, short edges of 480 to 896 px in training (docs/sources.md 3.5).

Layout:    data/coco/{train2017,val2017} and data/coco/annotations/instances_{train,val}2017.json
Batch:     2 per GPU; 8 GPUs make 16
Elsewhere: ln -s DIR data/coco
"""

_base_ = 'mmdet::_base_/datasets/coco_instance.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, short_edge) for short_edge in range(480, 897, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    num_workers=4,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
