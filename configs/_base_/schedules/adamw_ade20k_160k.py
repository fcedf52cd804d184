"""Optimization of UperNet on ADE20K: mmseg's ConvNeXt-T, for 16 images per step, 160 000 steps.

Stated there (docs/sources.md 4.3): AdamW 1e-4, weight decay 0.05, learning rate times 0.9 per stage
         from the heads down, 1500 warm-up steps from 1e-6, then linear to zero
Inferred: suitability for these backbones. SparK has no segmentation recipe; mmseg's own ResNets use
          SGD, but ours are fine-tuned with AdamW and layer decay on COCO too. Norms are not
          decayed, as on COCO
Batch:   for another size, --auto-scale-lr scales the learning rate linearly (inferred)
"""

max_iters = 160_000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)
