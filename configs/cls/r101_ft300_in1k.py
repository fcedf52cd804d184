"""ResNet-101 fine-tuned on ImageNet-1K for 300 epochs: r50_ft300_in1k.py for another student.

Reproduces: the fine-tuning behind SparK's 82.2 % (published; not run here). Stated,
            docs/sources.md 3.5: for this depth the peak is .008 already, layer decay .8, drop
            path .2. Clipping as for ResNet-50.
Run:        bash tools/dist_train.sh configs/cls/r101_ft300_in1k.py 8 --amp
Data:       data/imagenet/train and val, as mmpretrain expects them.
Weights:    work_dirs/hgkd_r101_mae/epoch_300.pth
Hardware:   8 GPUs, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './r50_ft300_in1k.py'

model = dict(
    backbone=dict(
        depth=101,
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/hgkd_r101_mae/epoch_300.pth'),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
