"""Optimization of a plain ViT-B on COCO: ViTDet's for 16 images per step, 90 000 steps, "1x".

Stated (docs/sources.md 4.5): AdamW 1e-4, weight decay 0.1, none for norms and position embedding,
         learning rate times 0.7 per block from the heads down, warm-up from 0.001, steps of 0.1
         after two thirds and eight ninths (Detectron2's 1x; ViTDet's 100 epochs drop later)
Inferred: the length: Hybrid Distill trained for fewer than MAE's 100 epochs; the exact length is
          not known. The rate for 16 images: ViTDet has it for 64; iBOT and ViT-Adapter have it for
          plain ViTs in mmdet, iBOT at 2 images per GPU. 1000 warm-up steps: as many images as in
          ViTDet's 250 steps of 64. No decay of the class token, which ViTDet does not have
Batch:   for another size, --auto-scale-lr scales the learning rate linearly (inferred)
"""

_base_ = './adamw_coco_90k.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.7,
        norm_decay_mult=0.0,
        custom_keys={
            'backbone.cls_token': dict(decay_mult=0.0),
            'backbone.pos_embed': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.001),
    dict(_base_.param_scheduler[1], gamma=0.1),
]
