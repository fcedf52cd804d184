"""Small-scale SparK on Scenes: pixels instead of a teacher. The quickstart's baseline.

Reproduces: no row of a paper; SparK (ICLR 2023) on the engine, data, steps and optimizer of
            hgkd_r18_scenes.py. The decoder stops at half resolution, where a 1x1 convolution gives
            2 x 2 pixels per position: the benefit of SparK's last step does not justify its cost.
Run:        bash tools/quickstart.sh, or, after python tools/make_scenes.py,
            python tools/train.py configs/pretrain/spark_r18_scenes.py
Hardware:   2 CPU cores, no GPU.
Time:       about 7.5 minutes while H-GKD trains as well.
Metric:     four epochs: the README's second table.
"""

_base_ = ['./hgkd_r18_scenes.py']

model = dict(
    neck=dict(out_stride=2),
    teachers=dict(_delete_=True),
    heads=dict(_delete_=True, pixel=dict(type='PixelReconstructionHead')),
)
