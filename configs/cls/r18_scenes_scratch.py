"""ResNet-18 on Scenes from random weights: the baseline of r18_scenes.py.

Reproduces: no row of a paper. Without an init_cfg, the backbone gets mmpretrain's default ResNet
            initialization, as the students do; init_cfg=None would keep torch's own initialization.
Run:        bash tools/quickstart.sh --transfer, or, after python tools/make_scenes.py,
            python tools/train.py configs/cls/r18_scenes_scratch.py
Hardware:   2 CPU cores, no GPU.
Time:       see docs/transfer.md
Metric:     see docs/transfer.md
"""

_base_ = './r18_scenes.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18, zero_init_residual=False))
