"""Linear probe of ResNet-50 on ImageNet-1K: one linear layer on frozen features, 90 epochs.

Reproduces: no known row. mmpretrain's linear probes (docs/sources.md 4.1): frozen backbone with its
            norms in evaluation mode, features normalized by a batch norm without weights as in MAE
            (inferred for CNNs: features that imitate a teacher have no common scale), LARS with 0.1
            per 256 images, 1.6 here, no weight decay, 10 epochs of warm-up, cosine.
Run:        bash tools/dist_train.sh configs/cls/r50_linear_in1k.py 8 --amp
Data:       data/imagenet/train and val, in mmpretrain's layout.
Weights:    work_dirs/hgkd_r50_mae/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 512 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = [
    '../_base_/models/classifier_r50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=2048),
    ],
    head=dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01)),
)
train_dataloader = dict(batch_size=512, num_workers=8, drop_last=True)
val_dataloader = dict(batch_size=512, num_workers=8, dataset=dict(type='LabelledImageNet'))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='LARS', lr=0.1 * 4096 / 256, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=80, begin=10, end=90, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4096)
default_hooks = dict(checkpoint=dict(interval=5))
custom_hooks = [*_base_.custom_hooks, dict(type='PretrainedReportHook')]
