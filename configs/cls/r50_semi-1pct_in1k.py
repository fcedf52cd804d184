"""ResNet-50 fine-tuned on 1 % of ImageNet-1K's labels, 20 epochs.

Reproduces: no known row. The images are SimCLR's, the recipe Barlow Twins' for them (stated,
            docs/sources.md 4.2): SGD, batch 256, 0.5 for the classifier and 0.002 for the backbone,
            cosine, no weight decay. A student of masked images may need larger values: try
            --cfg-options optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.04
Run:        python tools/make_subset.py --list 1percent.txt
            bash tools/dist_train.sh configs/cls/r50_semi-1pct_in1k.py 8 --amp
Data:       data/imagenet/train and val; meta/train_1pct.txt there from the first command
            (docs/finetuning.md: source of the list, or a random subset instead).
Weights:    work_dirs/hgkd_r50_mae/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 32 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = [
    '../_base_/models/classifier_r50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(init_cfg=dict(type='Normal', layer='Linear', std=0.01)))
train_dataloader = dict(batch_size=32, num_workers=8, dataset=dict(ann_file='meta/train_1pct.txt'))
val_dataloader = dict(batch_size=128, num_workers=8, dataset=dict(type='LabelledImageNet'))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=0.0),
    # Without a layer_decay_rate it only merges the parameter groups, of which MMEngine makes 161.
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.002 / 0.5))),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, end=20)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(interval=5))
custom_hooks = [*_base_.custom_hooks, dict(type='PretrainedReportHook')]
