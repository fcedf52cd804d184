"""Optimization of UperNet with a ViT-B on ADE20K: mmseg's MAE, 16 images per step, 160 000 steps.

Stated there (docs/sources.md 4.6): as adamw_ade20k_160k.py except for the learning rate decay,
         0.65 per block from the heads down, and the weight decay, none for norms and biases
Inferred: no weight decay of class token and position embedding: mmseg's code intends to exclude
          them, but compares names without the leading 'backbone.'
"""

_base_ = './adamw_ade20k_160k.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            'backbone.cls_token': dict(decay_mult=0.0),
            'backbone.pos_embed': dict(decay_mult=0.0),
        },
    )
)
