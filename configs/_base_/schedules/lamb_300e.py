"""SparK's optimization (docs/sources.md 3.4), for 2048 images per step and 300 epochs.

SparK's:   LAMB with betas 0.9 and 0.95, gradient norm clipped at 5, peak learning rate 2e-4 per 256
           images, warm-up from 0.005 of the peak and cosine to 0.001 of it, weight decay 0.04 to
           0.2 by cosine, none for norms, biases and mask tokens; all of it per iteration
Changed:   300 epochs with 10 of warm-up instead of 1600 with 40. Inferred: SparK's share would be
           7.5; G2SD uses 10 of its 300 for warm-up (docs/sources.md 1.3d)
Precision: bfloat16 instead of float32. BF16OptimWrapper instead of AmpOptimWrapper, because
           bfloat16 needs no loss scaling, and AmpOptimWrapper needs an accelerator; for float32:
           --cfg-options optim_wrapper.type=OptimWrapper
Batch:     for another size, --auto-scale-lr scales the learning rate linearly, as in SparK
"""

max_epochs = 300
warmup_epochs = 10

optim_wrapper = dict(
    type='BF16OptimWrapper',
    # Lamb clips as well, at 1 unless told; clip_grad is there because it logs the norm.
    optimizer=dict(
        type='Lamb', lr=2e-4 * 2048 / 256, betas=(0.9, 0.95), weight_decay=0.04, max_grad_norm=5.0
    ),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys=dict(mask_token=dict(decay_mult=0.0)),
    ),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.005,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs - warmup_epochs,
        eta_min_ratio=0.001,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingWeightDecay',
        T_max=max_epochs,
        eta_min=0.2,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2048)
