"""Mask R-CNN on Scenes from random weights: the baseline of mask-rcnn_r18_fpn_scenes.py.

Reproduces: no row of a paper. Without an init_cfg, the backbone gets mmpretrain's default ResNet
            initialization, as the students do; init_cfg=None would keep torch's own initialization.
Run:        bash tools/quickstart.sh --transfer, or, after python tools/make_scenes.py,
            python tools/train.py configs/det/mask-rcnn_r18_fpn_scenes_scratch.py
Hardware:   2 CPU cores, no GPU.
Time:       see docs/transfer.md
Metric:     see docs/transfer.md
"""

_base_ = './mask-rcnn_r18_fpn_scenes.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=18,
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
    )
)
