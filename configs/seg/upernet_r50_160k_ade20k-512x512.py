"""UperNet R50 on ADE20K at 512 x 512, 160 000 steps, from a student of this project.

Reproduces: no known row. Heads, data and length are those of mmseg's UperNet, and the optimization
            that of mmseg's ConvNeXt-T (docs/sources.md 4.3); its suitability for these backbones is
            inferred.
Run:        bash tools/dist_train.sh configs/seg/upernet_r50_160k_ade20k-512x512.py 8
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Weights:    work_dirs/hgkd_r50_mae/epoch_300.pth, or
            --cfg-options model.backbone.init_cfg.checkpoint=FILE
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run. mIoU is measured ten times during training.
Baselines:  upernet_r50_160k_ade20k-512x512_scratch.py and ..._supervised.py
"""

_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/mmseg/ade20k.py',
    '../_base_/schedules/adamw_ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

train_dataloader = dict(batch_size=2)
