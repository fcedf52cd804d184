"""Scenes as COCO for mmdet: mmdet's own COCO base with another folder, classes and pipelines.

Make it: python tools/make_scenes.py --out data/scenes
Needs:   num_classes=12 in every head of the model.
Images keep their size of 128 px. mmdet's base drops training images without objects
(filter_empty_gt=True); they are kept here as negative examples.
"""

_base_ = 'mmdet::_base_/datasets/coco_instance.py'

data_root = 'data/scenes/coco/'
metainfo = dict(
    classes=(
        'boat', 'butterfly', 'car', 'cat', 'fish', 'flower',
        'house', 'key', 'mug', 'mushroom', 'rocket', 'tree',
    ),
    palette=[
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200),
        (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
        (210, 245, 60), (250, 190, 212), (0, 128, 128), (170, 110, 40),
    ],
)  # fmt: skip
scale = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=False, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
