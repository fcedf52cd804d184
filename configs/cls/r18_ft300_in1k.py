"""ResNet-18 fine-tuned on ImageNet-1K for 300 epochs: r50_ft300_in1k.py for another student.

Reproduces: no known row. SparK has no recipe for this depth: ResNet-50's, without drop path
            (inferred).
Run:        bash tools/dist_train.sh configs/cls/r18_ft300_in1k.py 8 --amp
Data:       data/imagenet/train and val, as mmpretrain expects them.
Weights:    work_dirs/hgkd_r18_mae/epoch_300.pth
Hardware:   8 GPUs, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './r50_ft300_in1k.py'

model = dict(
    backbone=dict(
        depth=18,
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/hgkd_r18_mae/epoch_300.pth'),
    ),
    head=dict(in_channels=512),
)
