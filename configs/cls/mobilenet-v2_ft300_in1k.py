"""MobileNetV2 fine-tuned on ImageNet-1K for 300 epochs: r50_ft300_in1k.py for another student.

Reproduces: no known row. SparK has no recipe for this network; ResNet-50's is used, with one
            layer-decay group per stage (inferred); mmpretrain's MobileNetV2 has no drop path.
Run:        bash tools/dist_train.sh configs/cls/mobilenet-v2_ft300_in1k.py 8 --amp
Data:       data/imagenet/train and val, in mmpretrain's layout.
Weights:    work_dirs/hgkd_mobilenet-v2_mae/epoch_300.pth
Hardware:   8 GPUs, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './r50_ft300_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hgkd_mobilenet-v2_mae/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(paramwise_cfg=dict(blocks_per_group=None))
