"""TinyMIM's optimization of ViTs (docs/sources.md 2.7), for 2048 images per step and 300 epochs.

TinyMIM's: AdamW with betas 0.9 and 0.95, peak learning rate 1.5e-4 per 256 images, weight decay
           0.05, none for norms, biases, positions and class token, 15 epochs of warm-up, cosine to
           zero; per iteration
Changed:   bfloat16 instead of float16
Batch:     for another size, --auto-scale-lr scales the learning rate linearly, as in TinyMIM
"""

max_epochs = 300
warmup_epochs = 15
_no_decay = dict(decay_mult=0.0)

optim_wrapper = dict(
    type='BF16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 2048 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(pos_embed=_no_decay, cls_token=_no_decay),
    ),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs - warmup_epochs,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2048)
