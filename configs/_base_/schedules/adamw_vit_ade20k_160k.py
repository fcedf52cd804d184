"""Optimization of UperNet with a ViT-B on ADE20K: MAE's in mmseg, 16 images a step, 160 000 steps.

Stated there (docs/sources.md 4.6): as adamw_ade20k_160k.py but for the decay of the learning rate,
         .65 a block from the heads down, and of the weights, none for norms and biases
Inferred: no decay of class token and position embedding: mmseg's code means to leave them out, but
         compares names that lack the 'backbone.' in front
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
