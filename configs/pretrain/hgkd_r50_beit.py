"""H-GKD: ResNet-50 from a BEiT ViT-B. The flagship with the paper's other kind of teacher.

Reproduces: no known row: the paper (ResNet-50 top-1 76.98 -> 80.01) names MAE and BEiT as
            teachers, but not which of them gave that figure.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r50_beit.py 8
Teacher:    mmpretrain's BEiT-B/16, 300 epochs, whose images are normalised as the student's are.
            Official BEiT files work too (--cfg-options model.teachers.mim.checkpoint=FILE): they
            are recognised, and images converted to their mean and std of 127.5.
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    teachers=dict(
        mim=dict(
            family='beit',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/beit/'
            'beit_vit-base-p16_8xb256-amp-coslr-300e_in1k/'
            'beit_vit-base-p16_8xb256-amp-coslr-300e_in1k_20221128-ab79e626.pth',
        )
    )
)
