"""H-GKD: MobileNetV2 from an MAE ViT-B. The flagship's recipe for a student of 2.2 M weights.

Reproduces: no known row: the paper names MobileNet among its networks, but the known figures are
            ResNet-50's (top-1 76.98 -> 80.01).
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_mobilenet-v2_mae.py 8
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    # The last map of each stride: 4, 8, 16, 32. mmpretrain's MobileNetV2 has no drop path.
    backbone=dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 7)),
)
