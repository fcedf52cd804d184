"""UperNet R50 on ADE20K at 512 x 512, 80 000 steps, from a student of this project.

Reproduces: no known row. upernet_r50_160k_ade20k-512x512.py at mmseg's other length, 80 000 steps.
Run:        bash tools/dist_train.sh configs/seg/upernet_r50_80k_ade20k-512x512.py 8
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Weights:    work_dirs/hgkd_r50_mae/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run. mIoU is measured ten times during training.
Baselines:  upernet_r50_80k_ade20k-512x512_scratch.py and ..._supervised.py
"""

_base_ = './upernet_r50_160k_ade20k-512x512.py'

max_iters = 80_000
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
