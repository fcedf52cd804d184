"""ResNet-18 fine-tuned on the 12 classes of Scenes: the first task of the transfer table.

Reproduces: no row of a paper; a short fine-tuning like SparK's on ImageNet, but with AdamW (LAMB's
            steps are meant for thousands of images) and without mixing of images.
Run:        bash tools/quickstart.sh --transfer, or, after bash tools/quickstart.sh,
            python tools/train.py configs/cls/r18_scenes.py
Baseline:   r18_scenes_scratch.py
5 % of the labels: --cfg-options train_dataloader.dataset.indices=300 takes the first 300 images;
            the transfer table draws them per class.
Hardware:   2 CPU cores, no GPU.
Time:       see docs/transfer.md
Metric:     see docs/transfer.md
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/scenes_pretrain.py',
    '../_base_/datasets/scenes_cls.py',
    '../_base_/schedules/scenes_transfer.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=12
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        zero_init_residual=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/quickstart/hgkd/last.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=12,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=_base_.cls_val_dataset,
)
val_evaluator = dict(type='Accuracy', topk=1)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, dict(type='PretrainedReportHook')]
default_hooks = _base_.transfer_hooks
log_processor = _base_.transfer_log
