"""Hybrid Distill: ViT-B/16 from MAE and CLIP on ImageNet-1K, 300 epochs.

Reproduces: the paper's ViT-B row with CLIP; its figure was not confirmed (docs/sources.md 2.2).
Run:        bash tools/dist_train.sh configs/pretrain/hybrid_vit-b_mae-clip.py 8
Teachers:   OpenAI's CLIP ViT-B/16 in timm's naming, fetched once, with its original QuickGELU and
            images normalized by CLIP's mean and std; MAE as in hybrid_vit-b_mae-deit.py.
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. The log has kNN top-1 every 20 epochs; fine-tune with
            configs/cls/vit-b_ft100_in1k.py. Without the kNN: --cfg-options "custom_hooks=[]"
"""

_base_ = './hybrid_vit-b_mae-deit.py'

model = dict(
    teachers=dict(
        cl=dict(
            name='vit_base_patch16_clip_quickgelu_224.openai',
            checkpoint='https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/main/'
            'model.safetensors',
        )
    )
)
