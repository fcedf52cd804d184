"""Hybrid Distill: ViT-B/16 from MAE and DeiT on ImageNet-1K, 300 epochs.

Reproduces: the paper's ViT-B row without CLIP, ImageNet-1K top-1 83.7 (arXiv 2306.15876; the
            paper's figure, from a review). Its recipe is not known: docs/sources.md 2 lists the
            replacements and the reasons.
Run:        bash tools/dist_train.sh configs/pretrain/hybrid_vit-b_mae-deit.py 8
Data:       data/imagenet/train and val, in mmpretrain's layout; a symlink works.
Teachers:   fetched once, or your own files: --cfg-options model.teachers.cl.checkpoint=FILE
            model.teachers.mim.checkpoint=FILE
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. The log has kNN top-1 every 20 epochs; fine-tune with
            configs/cls/vit-b_ft100_in1k.py. Without the kNN: --cfg-options "custom_hooks=[]"
"""

_base_ = [
    '../_base_/models/hybrid_vit-b_mae-deit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/imagenet_knn.py',
]

_load, _crop, *_others = _base_.train_dataloader.dataset.pipeline
# TinyMIM's crops.
train_dataloader = dict(
    dataset=dict(pipeline=[_load, dict(_crop, crop_ratio_range=(0.2, 1.0)), *_others])
)
custom_hooks = [*_base_.custom_hooks, _base_.knn_hook]
