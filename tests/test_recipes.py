"""The optimization of the full-scale configs: what is whose recipe, number by number."""

from __future__ import annotations

import math
import re
from pathlib import Path

import mmseg
import pytest
import torch
from helpers.configs import (
    CONFIGS,
    PRETRAINING,
    VITS,
    block,
    build,
    follow,
    load,
    options,
    settings_by_weight,
    slow_if_large,
    student,
)
from mmengine.config import Config
from timm.loss import BinaryCrossEntropy
from torch import nn

FLAGSHIP = 'pretrain/hgkd_r50_mae.py'
HYBRIDS = [name for name in PRETRAINING if name.startswith('pretrain/hybrid_')]
SEGMENTOR = 'seg/upernet_r50_160k_ade20k-512x512.py'
DETECTOR = 'det/mask-rcnn_r50_fpn_1x_coco.py'
CLASSIFIER = 'cls/r50_ft300_in1k.py'


# -- pre-training ---------------------------------------------------------------------------------


@pytest.mark.parametrize('name', slow_if_large(PRETRAINING))
def test_optimizer_spares_norms_biases_and_tokens(name: str) -> None:
    config = load(name)
    model = build(config)
    groups = settings_by_weight(model, config)
    lr, decay, tokens = 1.6e-3, 0.04, {n for n in groups if 'mask_token' in n}
    if name in HYBRIDS:
        lr, decay, tokens = 1.2e-3, 0.05, {'backbone.cls_token', 'backbone.pos_embed'}
    exempt = {n for n, p in model.named_parameters() if p.ndim == 1} | tokens
    assert tokens
    assert {n for n, group in groups.items() if group['weight_decay'] == 0} == exempt
    assert {g['weight_decay'] for n, g in groups.items() if n not in exempt} == {decay}
    assert {round(g['lr'], 9) for g in groups.values()} == {lr}
    if name not in HYBRIDS:
        settings = config.optim_wrapper
        assert settings.optimizer.max_grad_norm == settings.clip_grad.max_norm


@pytest.mark.parametrize('name', slow_if_large(HYBRIDS))
def test_layers_and_tokens_of_a_transformer_student(name: str) -> None:
    model = build(load(name))
    blocks = len(model.backbone.layers)
    assert model.masking.counts(196, blocks) == (137, 95, 66)
    assert model.layers == [blocks // 2 - 1, 3 * blocks // 4 - 1, blocks - 1]
    for teacher in model.teachers.values():
        assert teacher.grid((224, 224)) == (14, 14)


@pytest.mark.parametrize('epochs', [300, 100])
def test_learning_rate_and_weight_decay_follow_spark(epochs: int) -> None:
    config = load(FLAGSHIP)
    if epochs == 100:
        config.merge_from_dict(options(block('pretraining', 'shorter').replace('\\', '').split()))
    assert config.train_cfg.max_epochs == epochs
    assert config.optim_wrapper.optimizer.lr == pytest.approx(2e-4 * 2048 / 256)
    per_epoch = 4
    seen = follow(config, steps_per_epoch=per_epoch)
    lr, warm, total = seen['lr'], 10 * per_epoch, epochs * per_epoch
    assert len(lr) == total
    assert lr[0] == pytest.approx(0.005)
    assert lr[warm // 2] == pytest.approx(0.5, rel=0.05)
    assert max(lr) == pytest.approx(1)
    assert abs(lr.index(max(lr)) - warm) <= 1
    assert lr[(warm + total) // 2] == pytest.approx(0.001 + 0.999 / 2, rel=0.01)
    assert lr[-1] == pytest.approx(0.001, rel=0.05 if epochs == 300 else 0.2)
    assert seen['decay'][-1] == pytest.approx(0.2, rel=1e-3)
    for step in (0, total // 4, total // 2, total - 1):
        expected = 0.2 - (0.2 - 0.04) * (1 + math.cos(math.pi * step / total)) / 2
        assert seen['decay'][step] == pytest.approx(expected, rel=1e-2)
    assert set(seen['exempt']) == {0.0}


def test_tinymims_schedule() -> None:
    config = load('pretrain/hybrid_vit-b_mae-deit.py')
    assert config.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 2048 / 256)
    per_epoch = 4
    seen = follow(config, steps_per_epoch=per_epoch)
    lr, warm = seen['lr'], 15 * per_epoch
    assert max(lr) == pytest.approx(1)
    assert abs(lr.index(max(lr)) - warm) <= 1
    assert lr[(warm + len(lr)) // 2] == pytest.approx(0.5, rel=0.01)
    assert lr[-1] < 1e-3
    assert set(seen['decay']) == {0.05}


def test_baseline_differs_in_the_target_only() -> None:
    ours, baseline = load(FLAGSHIP), load('pretrain/spark_r50.py')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'randomness'):
        assert ours[key] == baseline[key]
    for key in ('backbone', 'mask', 'engine', 'data_preprocessor'):
        assert ours.model[key] == baseline.model[key]
    changed = {'out_stride'}
    assert {k for k, v in ours.model.neck.items() if baseline.model.neck[k] != v} == changed


# -- the tasks ------------------------------------------------------------------------------------

# (learning rate of the head, rate of decay, exponent of the stem, batch) by config
DECAYED = {
    # SparK: downstream_imagenet/arg.py and models/__init__.py, downstream_d2/lr_decay.py
    CLASSIFIER: (0.008, 0.7, 7, 2048),
    f'{CLASSIFIER} model.backbone.depth=101': (0.008, 0.8, 13, 2048),
    f'{CLASSIFIER} model.backbone.depth=18': (0.008, 0.7, 5, 2048),
    'cls/mobilenet-v2_ft300_in1k.py': (0.008, 0.7, 8, 2048),
    DETECTOR: (2.5e-4, 0.6, 6, 16),
    'det/mask-rcnn_r50_fpn_3x_coco.py': (2.5e-4, 0.6, 6, 16),
    f'{DETECTOR} model.backbone.depth=18': (2.5e-4, 0.6, 5, 16),
    f'{DETECTOR} model.backbone.depth=101': (2.5e-4, 0.8, 12, 16),
    'det/mask-rcnn_mobilenet-v2_fpn_1x_coco.py': (2.5e-4, 0.7, 8, 16),
    'det/mask-rcnn_r50_fpn_1x_coco_scratch.py': (2.5e-4, 1.0, 6, 16),
    # mmseg: configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py
    SEGMENTOR: (1e-4, 0.9, 5, 16),
    'seg/upernet_r50_80k_ade20k-512x512.py': (1e-4, 0.9, 5, 16),
    f'{SEGMENTOR} model.backbone.depth=18': (1e-4, 0.9, 5, 16),
    f'{SEGMENTOR} model.backbone.depth=101': (1e-4, 0.9, 5, 16),
    'seg/upernet_mobilenet-v2_160k_ade20k-512x512.py': (1e-4, 0.9, 8, 16),
    # facebookresearch/mae FINETUNE.md: 5e-4 and 1e-3 for each 256 images
    'cls/vit-b_ft100_in1k.py': (2e-3, 0.65, 13, 1024),
    'cls/vit-l_ft50_in1k.py': (4e-3, 0.75, 25, 1024),
    # Detectron2 projects/ViTDet/configs/COCO/mask_rcnn_vitdet_{b,l}_100ep.py
    'det/mask-rcnn_vit-b_simplefpn_1x_coco.py': (1e-4, 0.7, 13, 16),
    'det/mask-rcnn_vit-l_simplefpn_1x_coco.py': (1e-4, 0.8, 25, 16),
    # mmseg configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py; .75 is MAE's
    'seg/upernet_vit-b_160k_ade20k-512x512.py': (1e-4, 0.65, 13, 16),
    'seg/upernet_vit-l_160k_ade20k-512x512.py': (1e-4, 0.75, 25, 16),
}
STEMS = ('conv1.', 'bn1.', 'cls_token', 'pos_embed', 'patch_embed.')


@pytest.mark.parametrize('case', DECAYED)
def test_learning_rates_by_layer_and_batch(case: str) -> None:
    lr, rate, exponent, batch = DECAYED[case]
    config = load(case)
    model = build(config)
    settings = settings_by_weight(model, config)
    last = 'layer4.' if 'depth' in config.model.backbone else 'conv2.'  # of MobileNetV2
    for name, group in settings.items():
        part, _, rest = name.partition('.')
        block = re.match(r'layers\.(\d+)\.', rest)  # of a transformer, where all are tried
        if part != 'backbone' or rest.startswith('ln'):
            power = 0
        elif rest.startswith(STEMS):
            power = exponent
        elif block or rest.startswith(last):
            power = exponent - 1 - int(block[1]) if block else 1
        else:
            continue
        assert group['lr'] == pytest.approx(lr * rate**power), name
    tokens = {'backbone.cls_token', 'backbone.pos_embed'} & settings.keys()
    norms = {
        f'{prefix}.{n}'
        for prefix, m in model.named_modules()
        for n, _ in m.named_parameters(recurse=False)
        if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)
    }
    biases = {name for name in settings if name.endswith('.bias')}
    decays = config.default_scope != 'mmpretrain' and (
        student(case) not in VITS or config.default_scope == 'mmdet'
    )
    exempt = {name for name, group in settings.items() if group['weight_decay'] == 0}
    assert exempt == tokens | norms | (set() if decays else biases)
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == batch


# -- classification -------------------------------------------------------------------------------


def test_fine_tuning_is_sparks_at_half_the_peak() -> None:
    config = load(CLASSIFIER)
    optimizer = config.optim_wrapper.optimizer
    # SparK's peak: 2e-3 for each 256 images
    assert optimizer.lr == pytest.approx(0.5 * 2e-3 * config.auto_scale_lr.base_batch_size / 256)
    assert (optimizer.type, optimizer.weight_decay) == ('Lamb', 0.02)
    assert (optimizer.always_adapt, optimizer.bias_correction) == (True, False)
    assert optimizer.max_grad_norm == config.optim_wrapper.clip_grad.max_norm == 1
    assert config.model.backbone.drop_path_rate == 0.05
    deep = load(f'{CLASSIFIER} model.backbone.depth=101')
    assert deep.model.backbone.drop_path_rate == 0.2
    names = [t.type for t in config.train_dataloader.dataset.pipeline]
    assert names.index('torchvision/TrivialAugmentWide') < names.index('RandomErasing')
    testing = {t.type: t for t in config.val_dataloader.dataset.pipeline}
    share = testing['CenterCrop'].crop_size / testing['ResizeEdge'].scale
    assert share == pytest.approx(0.95, abs=0.002)
    ema = config.custom_hooks[1]
    assert (ema.type, 1 - ema.momentum, ema.evaluate_on_origin) == ('EMAHook', 0.9999, True)
    rates = follow(config, steps_per_epoch=4)['lr']
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) == pytest.approx(5 * 4, abs=1)
    assert rates[-1] == pytest.approx(0.001, rel=0.05)


def test_targets_are_mixed_and_smoothed_for_a_binary_loss() -> None:
    config = load(CLASSIFIER)
    model = build(config)
    target = torch.zeros(2, 1000)
    target[0, 3] = target[1, 5] = 0.25
    target[0, 7] = target[1, 9] = 0.75
    # timm's is SparK's, which smooths the mixed targets before.
    smoothed = 0.9 * target + 0.1 / 1000
    logits = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    theirs = BinaryCrossEntropy(smoothing=0, target_threshold=None)(logits, smoothed)
    loss = model.head.loss_module(logits, target, avg_factor=2)
    torch.testing.assert_close(loss, theirs)
    augments = {type(a).__name__: a.alpha for a in model.data_preprocessor.batch_augments.augments}
    assert augments == {'Mixup': 0.1, 'CutMix': 1.0}


def test_linear_probe_trains_one_layer() -> None:
    config = load('cls/r50_linear_in1k.py')
    model = build(config)
    model.train()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {'head.fc.weight', 'head.fc.bias'}
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert model.neck[1].bn.training and not model.neck[1].bn.affine
    batch = 8 * config.train_dataloader.batch_size
    assert batch == config.auto_scale_lr.base_batch_size == 4096
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.1 * batch / 256)
    rates = follow(config, steps_per_epoch=10)['lr']
    assert len(rates) == 90 * 10 and rates[-1] < 0.01


def test_semi_supervised() -> None:
    config = load('cls/r50_semi-1pct_in1k.py')
    assert config.train_dataloader.dataset.ann_file == 'meta/train_1pct.txt'
    assert 'ann_file' not in config.val_dataloader.dataset
    rates = {n: g['lr'] for n, g in settings_by_weight(build(config), config).items()}
    # Barlow Twins: --lr-backbone 0.002 --lr-classifier 0.5 --weight-decay 0, batch 256
    assert {v for n, v in rates.items() if n.startswith('head.')} == {0.5}
    (backbone,) = {v for n, v in rates.items() if n.startswith('backbone.')}
    assert backbone == pytest.approx(0.002)
    assert config.optim_wrapper.optimizer.weight_decay == 0
    assert 8 * config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size == 256
    rates = follow(config, steps_per_epoch=10)['lr']
    assert len(rates) == 20 * 10 and rates[-1] < 0.01


@pytest.mark.parametrize(
    ('name', 'theirs'),
    [
        ('vit-b_ft100_in1k', 'vit-base-p16_8xb128-coslr-100e_in1k'),
        ('vit-l_ft50_in1k', 'vit-large-p16_8xb128-coslr-50e_in1k'),
    ],
)
def test_fine_tuning_is_mmpretrains_for_mae(name: str, theirs: str) -> None:
    ours = load(f'cls/{name}.py').to_dict()
    leaf = f"_base_ = 'mmpretrain::mae/benchmarks/{theirs}.py'"
    expected = Config.fromstring(leaf, '.py').to_dict()
    assert ours['model']['backbone']['init_cfg'].pop('checkpoint')
    assert expected['model']['backbone']['init_cfg'].pop('checkpoint') == ''
    assert ours['optim_wrapper'].pop('constructor') == 'LayerDecayOptimWrapperConstructor'
    expected['optim_wrapper'].pop('constructor')
    # which numbers the class folders as training does
    assert ours['val_dataloader']['dataset'].pop('type') == 'LabelledImageNet'
    assert expected['val_dataloader']['dataset'].pop('type') == 'ImageNet'
    same = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader')
    for key in (*same, 'val_dataloader', 'val_evaluator', 'auto_scale_lr', 'randomness'):
        assert ours[key] == expected[key], key
    rates = follow(load(f'cls/{name}.py'), steps_per_epoch=4)['lr']
    assert rates.index(max(rates)) == pytest.approx(5 * 4, abs=1)
    assert rates[-1] < 0.01


# -- detection and segmentation -------------------------------------------------------------------


@pytest.mark.parametrize(
    ('length', 'steps', 'drops'),
    [('1x', 90_000, (60_000, 80_000)), ('3x', 270_000, (210_000, 250_000))],
)
def test_detection_schedules(length: str, steps: int, drops: tuple[int, int]) -> None:
    config = load(f'det/mask-rcnn_r50_fpn_{length}_coco.py')
    assert config.train_cfg.max_iters == steps
    rates = follow(config, scale=500)['lr']
    assert rates[0] == pytest.approx(0.01)
    assert rates[2] == pytest.approx(1, rel=0.01)
    first, second = (drop // 500 for drop in drops)
    assert rates[first - 1] == pytest.approx(1)
    assert rates[first] == rates[second - 1] == pytest.approx(0.25)
    assert rates[second] == rates[-1] == pytest.approx(0.25**2)


def test_detection_is_sparks() -> None:
    # keyu-tian/SparK downstream_d2/configs/coco_R_50_FPN_CONV_1x_moco_adam.yaml
    config = load(DETECTOR)
    model = build(config)
    assert model.backbone.frozen_stages == -1 and not model.backbone.norm_eval
    head = model.roi_head.bbox_head
    assert (len(head.shared_convs), len(head.shared_fcs)) == (4, 1)
    assert len(model.roi_head.mask_head.convs) == 4
    for part in (model.backbone, model.neck, head, model.roi_head.mask_head):
        assert any(isinstance(m, nn.SyncBatchNorm) for m in part.modules())
    pipeline = config.train_dataloader.dataset.pipeline
    (resize,) = [t for t in pipeline if t.type == 'RandomChoiceResize']
    assert [min(s) for s in resize.scales] == [480 + 32 * i for i in range(14)]
    assert {max(s) for s in resize.scales} == {1333}
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=2.5e-4, betas=(0.9, 0.999), weight_decay=1e-4
    )
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 5000


def test_detection_is_vitdets() -> None:
    # Detectron2 configs/common/models/mask_rcnn_vitdet.py
    config = load('det/mask-rcnn_vit-b_simplefpn_1x_coco.py')
    model = build(config)
    assert len(model.rpn_head.rpn_conv) == 2
    head = model.roi_head.bbox_head
    assert (len(head.shared_convs), len(head.shared_fcs)) == (4, 1)
    for part in (model.neck, head, model.roi_head.mask_head):
        norms = {(type(m).__name__, m.eps) for m in part.modules() if 'Norm' in type(m).__name__}
        assert norms == {('LayerNorm2d', 1e-6)}
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', 0.1)
    assert config.model.backbone.drop_path_rate == 0.1
    rates = follow(config, scale=500)['lr']
    assert rates[0] == pytest.approx(0.001)
    assert rates[2] == pytest.approx(1, rel=0.01)
    assert rates[119] == pytest.approx(1) and rates[120] == pytest.approx(0.1)
    assert rates[159] == pytest.approx(0.1) and rates[160] == rates[-1] == pytest.approx(0.01)
    assert len(rates) == 180


@pytest.mark.parametrize(('length', 'steps'), [('160k', 160_000), ('80k', 80_000)])
def test_segmentation_schedules(length: str, steps: int) -> None:
    config = load(f'seg/upernet_r50_{length}_ade20k-512x512.py')
    assert config.train_cfg.max_iters == steps
    rates = follow(config, scale=500)['lr']
    assert rates[0] == pytest.approx(1e-6)
    assert rates[3] == pytest.approx(1, rel=0.01)
    middle = (1500 + steps) // 2
    assert rates[middle // 500] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.01
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == steps // 10


def test_segmentation_is_mmsegs_but_for_the_backbone() -> None:
    ours = load(SEGMENTOR).model
    theirs = Config.fromfile(CONFIGS / '_base_' / 'mmseg' / 'upernet_r50.py').model
    for head in ('decode_head', 'auxiliary_head'):
        assert ours[head] == {**theirs[head], 'num_classes': 150}
    assert ours.data_preprocessor.size == (512, 512)
    assert ours.backbone.type == 'mmpretrain.ResNet' and ours.pretrained is None


def test_segmentation_is_mmsegs_for_mae_but_for_the_backbone() -> None:
    ours = load('seg/upernet_vit-b_160k_ade20k-512x512.py')
    folder = Path(mmseg.__path__[0]) / '.mim' / 'configs' / 'mae'
    theirs = Config.fromfile(folder / 'mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py')
    for key in ('neck', 'decode_head', 'auxiliary_head', 'test_cfg'):
        assert ours.model[key] == theirs.model[key]
    for key in ('drop_path_rate', 'patch_size'):
        assert ours.model.backbone[key] == theirs.model.backbone[key]
    assert list(ours.model.backbone.out_indices) == theirs.model.backbone.out_indices
    assert ours.model.data_preprocessor == theirs.model.data_preprocessor
    assert ours.param_scheduler == theirs.param_scheduler
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size
