"""Scenes as ADE20K for mmseg: mmseg's own ADE20K base with another folder, classes and pipelines.

Make it: python tools/make_scenes.py --out data/scenes
Needs:   num_classes=13 in every head, size=(128, 128) in the model's data_preprocessor.
The data set is mmseg's BaseSegDataset and not ADE20KDataset, which accepts only subsets of its own
150 class names; suffixes and reduce_zero_label are those of ADE20KDataset.
"""

_base_ = '../mmseg/ade20k.py'

data_root = 'data/scenes/ade/'
dataset_type = 'BaseSegDataset'
metainfo = dict(
    classes=(
        'background', 'boat', 'butterfly', 'car', 'cat', 'fish', 'flower',
        'house', 'key', 'mug', 'mushroom', 'rocket', 'tree',
    ),
    palette=[
        [40, 40, 40], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200],
        [245, 130, 48], [145, 30, 180], [70, 240, 240], [240, 50, 230],
        [210, 245, 60], [250, 190, 212], [0, 128, 128], [170, 110, 40],
    ],
)  # fmt: skip
crop_size = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=crop_size, ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
as_ade = dict(
    type=dataset_type,
    data_root=data_root,
    metainfo=metainfo,
    img_suffix='.jpg',
    seg_map_suffix='.png',
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(**as_ade, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(**as_ade, pipeline=test_pipeline))
test_dataloader = val_dataloader
