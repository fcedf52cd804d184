"""H-GKD: ResNet-50 with a U-Net decoder, and the MAE ViT-B/16 of mmpretrain's zoo as teacher.

Student:  mmpretrain's ResNet-50, drop path 0.05 (SparK's for this depth, docs/sources.md 3.4)
Decoder:  SparK's, stopped at the teacher's 14 x 14 token grid: width 512, so 256 channels there
Teacher:  1600 epochs on ImageNet-1K; the file name ends with its hash, which is checked
Losses:   L_feat + L_sim, weights 1 (stated in the paper); every other option is a default of its
          class, stated or inferred: see the table in docs/pretraining.md
"""

model = dict(
    type='HGKD',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3), drop_path_rate=0.05),
    neck=dict(type='UNetDecoder', width=512, out_stride=16),
    teachers=dict(
        mim=dict(
            type='MIMTeacher',
            family='mae',
            arch='b',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth',
            teacher_view='full',
        )
    ),
    heads=dict(
        feat=dict(type='FeatureImitationHead', teacher='mim'),
        sim=dict(type='SimilarityDistributionHead', teacher='mim', queue_size=65536),
    ),
    mask=dict(cell=32, ratio=0.6),
    engine='tiles',
)
