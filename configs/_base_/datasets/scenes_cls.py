"""Scenes with labels for kNN and linear probe: the whole image at 96 px, no augmentation.

Make it: python tools/make_scenes.py --out data/scenes
Use it:  KNNEvalHook(train_dataset=_base_.cls_train_dataset, val_dataset=_base_.cls_val_dataset);
          its names differ from those of scenes_pretrain.py, so a config may use both as bases.
"""

cls_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=96, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs'),
]
cls_train_dataset = dict(
    type='LabelledFolder',
    data_root='data/scenes/',
    data_prefix='train',
    with_label=True,
    pipeline=cls_pipeline,
)
cls_val_dataset = dict(
    type='LabelledFolder',
    data_root='data/scenes/',
    data_prefix='val',
    with_label=True,
    pipeline=cls_pipeline,
)
