"""H-GKD, the flagship: ResNet-50 distilled from an MAE ViT-B on ImageNet-1K, 300 epochs.

Reproduces: the paper's ResNet-50 row, ImageNet-1K top-1 76.98 -> 80.01 (arXiv 2309.09571; the
            paper's figures). Its recipe is not known: docs/pretraining.md lists the replacements
            and the reasons.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r50_mae.py 8
Data:       data/imagenet/train and val, in mmpretrain's layout; a symlink works.
Teacher:    fetched once, or your own file: --cfg-options model.teachers.mim.checkpoint=FILE
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. The log has kNN top-1 every 20 epochs.
No labels:  hgkd_r50_mae_folder.py, or without the kNN --cfg-options "custom_hooks=[]"
"""

_base_ = [
    '../_base_/models/hgkd_r50_mae.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/lamb_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/imagenet_knn.py',
]

custom_hooks = [*_base_.custom_hooks, _base_.knn_hook]
