"""H-GKD: ResNet-18 from an MAE ViT-B. The flagship's recipe for a smaller student.

Reproduces: no known row: of the paper's students only ResNet-50 (top-1 76.98 -> 80.01) is known
            by its figures.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r18_mae.py 8
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    # No drop path: SparK's falls with the depth and is .05 at ResNet-50, its smallest (inferred).
    backbone=dict(depth=18, drop_path_rate=0.0),
)
