"""H-GKD: ResNet-50 from an MAE ViT-L. The flagship with a larger teacher.

Reproduces: no known row: the paper (ResNet-50 top-1 76.98 -> 80.01) does not say how large its
            teacher is.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r50_mae-l.py 8
Teacher:    mmpretrain's MAE ViT-L/16, 1600 epochs; or --cfg-options
            model.teachers.mim.checkpoint=FILE
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    teachers=dict(
        mim=dict(
            arch='l',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth',
        )
    ),
)
