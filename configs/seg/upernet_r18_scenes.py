"""UperNet with a ResNet-18 on Scenes: background and 12 kinds of objects, pixel by pixel.

Reproduces: no row of a paper; a small-scale upernet_r50_80k_ade20k-512x512.py: heads of 64
            channels, background pixels weighted 0.2. They are 63 % of the training pixels, each
            class 2 to 4 %: without the weight, short trainings from random weights learn hardly
            anything else.
Run:        bash tools/quickstart.sh --transfer, or, after bash tools/quickstart.sh
            and python tools/make_scenes.py --out data/scenes,
            python tools/train.py configs/seg/upernet_r18_scenes.py
Baseline:   upernet_r18_scenes_scratch.py
Hardware:   2 CPU cores, no GPU.
Time:       see docs/transfer.md
Metric:     see docs/transfer.md
"""

_base_ = [
    '../_base_/mmseg/upernet_r50.py',
    '../_base_/mmseg/default_runtime.py',
    '../_base_/datasets/scenes_ade.py',
    '../_base_/schedules/scenes_transfer.py',
]
custom_imports = dict(
    imports=['mmpretrain.models', 'hgkd_mm.engine', 'hgkd_mm.segmentation'],
    allow_failed_imports=False,
)

norm_cfg = dict(type='BN')
classes = 13
weighted = dict(type='ClassWeightedCrossEntropyLoss', class_weight=[0.2] + [1.0] * 12)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=18,
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/quickstart/hgkd/last.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(
        in_channels=[64, 128, 256, 512],
        channels=64,
        num_classes=classes,
        norm_cfg=norm_cfg,
        loss_decode=weighted,
    ),
    auxiliary_head=dict(
        in_channels=256,
        channels=64,
        num_classes=classes,
        norm_cfg=norm_cfg,
        loss_decode=weighted,
    ),
)
custom_hooks = [dict(type='PretrainedReportHook')]
default_hooks = _base_.transfer_hooks
log_processor = _base_.transfer_log
