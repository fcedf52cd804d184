"""UperNet with ViT-L/16 on ADE20K at 512 x 512, 160 000 steps, from Hybrid Distill.

Reproduces: no known row. upernet_vit-b_160k_ade20k-512x512.py for another student. Blocks 7, 11, 15
            and 23 (from 0), heads of 1024 channels and drop path 0.2: mmseg's BEiT-L (stated,
            docs/sources.md 4.6). Layer decay 0.75: inferred, MAE's for this size on ImageNet;
            mmseg's BEiT-L has 0.95 at 2e-5, after fine-tuning with labels.
Run:        bash tools/dist_train.sh configs/seg/upernet_vit-l_160k_ade20k-512x512.py 8 --amp
Data:       data/ade/ADEChallengeData2016, in mmseg's layout.
Weights:    work_dirs/hybrid_vit-l_mae-clip/epoch_300.pth
Hardware:   8 GPUs, 2 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './upernet_vit-b_160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        out_indices=(7, 11, 15, 23),
        init_cfg=dict(checkpoint='work_dirs/hybrid_vit-l_mae-clip/epoch_300.pth'),
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
