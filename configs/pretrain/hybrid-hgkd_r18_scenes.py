"""Small-scale hybrid H-GKD on Scenes: ResNet-18 from a small MAE and a small supervised ViT.

Reproduces: no paper; ours. hybrid-hgkd_r50_mae-dino.py at the size of hgkd_r18_scenes.py.
Run:        python tools/ablate.py configs/_base_/ablations/r18_scenes.py, or
            python tools/train.py configs/pretrain/hybrid-hgkd_r18_scenes.py
Labels:     the second teacher was trained with those of 12000 Scenes, including the quickstart's
            6000: its students are not label-free, and have used more than 5 % of labels.
Hardware:   2 CPU cores, no GPU.
Time:       7 to 15 minutes on one thread, while another training runs.
Metric:     docs/ablation.md
"""

_base_ = './hgkd_r18_scenes.py'

model = dict(
    teachers=dict(
        cl=dict(
            type='MIMTeacher',
            family='vit',
            arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
            img_size=96,
            patch_size=16,
            checkpoint='assets/vit_scenes.safetensors',
            teacher_view='visible',
            embedding='cls',
        )
    ),
    heads=dict(
        cl_feat=dict(
            type='FeatureImitationHead',
            teacher='cl',
            target_norm=dict(type='whiten', rank=64),
        ),
        cl_sim=dict(
            type='SimilarityDistributionHead',
            teacher='cl',
            queue_size=2048,
            target_norm=dict(type='whiten'),
        ),
        relation=dict(type='TokenRelationHead', teacher='mim', teacher_layers=[3]),
    ),
)
