"""Hybrid Distill: ViT-L/16 from MAE and CLIP on ImageNet-1K, 300 epochs.

Reproduces: the paper's ViT-L row on ImageNet-1K, top-1 87.6 (arXiv 2306.15876; the paper's figure,
            from a review).
Run:        bash tools/dist_train.sh configs/pretrain/hybrid_vit-l_mae-clip.py 8
Teachers:   OpenAI's CLIP ViT-L/14 on images of 196 px, which gives the student's 14 x 14 tokens
            (inferred: docs/sources.md 2.4); MAE ViT-L/16 of mmpretrain's zoo.
Layers:     of 24; TinyMIM's for ViT-L is 17
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. The log has kNN top-1 every 20 epochs; fine-tune with
            configs/cls/vit-l_ft50_in1k.py. Without the kNN: --cfg-options "custom_hooks=[]"
"""

_base_ = './hybrid_vit-b_mae-clip.py'

model = dict(
    backbone=dict(arch='large'),
    teachers=dict(
        cl=dict(
            name='vit_large_patch14_clip_quickgelu_224.openai',
            checkpoint='https://huggingface.co/timm/vit_large_patch14_clip_224.openai/resolve/main/'
            'model.safetensors',
            token_stride=16,
        ),
        mim=dict(
            arch='l',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/'
            'mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth',
        ),
    ),
    heads=dict(relation=dict(student_layers=[11, 17, 23], teacher_layers=[11, 17, 23])),
)
