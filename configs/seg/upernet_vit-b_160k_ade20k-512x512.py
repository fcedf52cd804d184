"""UperNet with ViT-B/16 on ADE20K at 512 x 512, 160 000 steps, from Hybrid Distill.

Reproduces: no known row; Hybrid Distill's recipe is not known. Network, data and optimization are
            mmseg's for MAE (docs/sources.md 4.6); all values, with the changes, are in
            configs/_base_/models/upernet_vit-b.py and
            configs/_base_/schedules/adamw_vit_ade20k_160k.py. Its suitability for this student is
            inferred; TinyMIM's ViT-B, 52.2 mIoU (published), uses it with layer decay 0.75.
Run:        bash tools/dist_train.sh configs/seg/upernet_vit-b_160k_ade20k-512x512.py 8 --amp
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Weights:    work_dirs/hybrid_vit-b_mae-clip/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run. mIoU is measured ten times during training.
To compare: from MAE and from labels, docs/segmentation.md
"""

_base_ = [
    '../_base_/models/upernet_vit-b.py',
    '../_base_/mmseg/ade20k.py',
    '../_base_/schedules/adamw_vit_ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

train_dataloader = dict(batch_size=2)
