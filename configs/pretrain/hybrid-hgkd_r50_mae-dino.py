"""Hybrid H-GKD: ResNet-50 from two teachers, MAE and DINO, on ImageNet-1K, 300 epochs.

Reproduces: no paper; ours. H-GKD (hgkd_r50_mae.py) with Hybrid Distill's second teacher: DINO's
            features and similarity distribution in addition to MAE's, and MAE's token relations
            among the decoder's tokens. Effect of each: tools/ablate.py, docs/ablation.md.
Run:        bash tools/dist_train.sh configs/pretrain/hybrid-hgkd_r50_mae-dino.py 8
Teachers:   fetched once, or your own files: --cfg-options model.teachers.cl.checkpoint=FILE
            model.teachers.mim.checkpoint=FILE
Without:    --cfg-options model.heads.relation=None, or another head
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. The log has kNN top-1 every 20 epochs.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    teachers=dict(
        cl=dict(
            type='TIMMTeacher',
            name='vit_base_patch16_224.dino',
            checkpoint='https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/'
            'dino_vitbase16_pretrain.pth',
            embedding='cls',  # through which DINO is trained
        )
    ),
    heads=dict(
        cl_feat=dict(type='FeatureImitationHead', teacher='cl'),
        cl_sim=dict(type='SimilarityDistributionHead', teacher='cl', queue_size=65536),
        # The ninth of 12: three quarters up, as TinyMIM's best of a ViT-L, 18 of 24 (inferred).
        relation=dict(type='TokenRelationHead', teacher='mim', teacher_layers=[8]),
    ),
)
