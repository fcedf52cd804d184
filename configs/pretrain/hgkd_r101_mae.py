"""H-GKD: ResNet-101 from an MAE ViT-B. The flagship's recipe for a larger student.

Reproduces: no known row: of the paper's students only ResNet-50 (top-1 76.98 -> 80.01) is known
            by its figures.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r101_mae.py 8
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './hgkd_r50_mae.py'

# Drop path is SparK's for this depth (docs/sources.md 3.4).
model = dict(backbone=dict(depth=101, drop_path_rate=0.08))
