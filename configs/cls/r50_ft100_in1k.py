"""ResNet-50 fine-tuned on ImageNet-1K for 100 epochs: a third of r50_ft300_in1k.py.

Reproduces: no known row; the recipe is SparK's (docs/sources.md 3.5), the length inferred: a third
            of its 300 epochs, with the same 5 of warm-up.
Run:        bash tools/dist_train.sh configs/cls/r50_ft100_in1k.py 8 --amp
Data:       data/imagenet/train and val, as mmpretrain expects them.
Hardware:   8 GPUs, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './r50_ft300_in1k.py'

max_epochs = 100
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs - _base_.warmup_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
