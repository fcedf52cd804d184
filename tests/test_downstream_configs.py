"""Every config of configs/cls, det and seg at full scale: header, network, optimization, data."""

from __future__ import annotations

import ast
import math
import re

import pytest
import torch
from helpers.downstream import (
    ALL,
    CONFIGS,
    OF_CNNS,
    SCOPES,
    TWINS,
    WIDTHS,
    build,
    documented,
    follow,
    load,
    settings_by_weight,
    student,
)
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_torchvision_models
from timm.loss import BinaryCrossEntropy
from torch import nn

# Other depths are options of ResNet-50's configs, by the page that has the command.
DEPTHS = [
    (page, f'model.backbone.depth={depth}')
    for page in ('finetuning', 'detection', 'segmentation')
    for depth in (18, 101)
]


def read(case: str | tuple[str, str]) -> Config:
    """A config's file, or a page's command."""
    return load(case) if isinstance(case, str) else documented(*case)


def test_what_users_look_for_is_there() -> None:
    students = ('r50', 'mobilenet-v2')
    det = [f'det/mask-rcnn_{s}_fpn_1x_coco.py' for s in students]
    seg = [f'seg/upernet_{s}_160k_ade20k-512x512.py' for s in students]
    cls = [f'cls/{s}_ft300_in1k.py' for s in students]
    cls += [f'cls/r50_{task}_in1k.py' for task in ('linear', 'semi-1pct')]
    longer = [det[0].replace('1x', '3x'), seg[0].replace('160k', '80k')]
    twins = [
        name.replace('.py', f'_{twin}.py')
        for name in (det[0], seg[0], *longer)
        for twin in ('scratch', 'supervised')
    ]
    assert sorted([*cls, *det, *seg, *longer, *twins]) == OF_CNNS


@pytest.mark.parametrize('name', ALL)
def test_header(name: str) -> None:
    header = ast.get_docstring(ast.parse((CONFIGS / name).read_text()))
    fields = {line.split(':')[0] for line in header.splitlines() if ':' in line}
    assert {'Reproduces', 'Run', 'Data', 'Hardware', 'Time', 'Metric'} <= fields
    assert f'configs/{name} 8' in header
    assert 'Time:       not run.' in header and 'Metric:     not run.' in header
    assert 'inferred' in header or 'docs/sources.md' in header or '.py' in header.split('Run:')[0]


@pytest.mark.parametrize('name', ALL)
def test_leaf_is_short(name: str) -> None:
    assert len((CONFIGS / name).read_text().splitlines()) <= 60


@pytest.mark.parametrize('name', ALL)
def test_testing_reads_what_validation_reads(name: str) -> None:
    config = load(name)
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


@pytest.mark.parametrize('name', OF_CNNS)
def test_scope_is_the_packages(name: str) -> None:
    assert load(name).default_scope == SCOPES[name.split('/')[0]]


@pytest.mark.parametrize('case', [*OF_CNNS, *DEPTHS])
def test_network_at_full_size(case: str | tuple[str, str]) -> None:
    config = read(case)
    model = build(config)
    depth = config.model.backbone.get('depth')
    widths = WIDTHS[f'r{depth}' if depth else 'mobilenet-v2']
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    synchronised = {isinstance(m, nn.SyncBatchNorm) for m in norms}
    model = revert_sync_batchnorm(model).eval()
    image = torch.zeros(1, 3, 64, 64, device='meta')
    with torch.no_grad():
        maps = model.backbone(image)
        if config.default_scope == 'mmpretrain':
            assert model(image).shape == (1, 1000)
            assert maps[-1].shape[1] == model.head.in_channels == widths[-1]
        else:
            assert [64 // m.shape[-1] for m in maps] == [4, 8, 16, 32]
            assert tuple(m.shape[1] for m in maps) == widths
        if config.default_scope == 'mmdet':
            assert [m.shape[1] for m in model.neck(maps)] == [256] * 5
            assert model.roi_head.bbox_head.num_classes == 80
            assert model.roi_head.mask_head.num_classes == 80
        if config.default_scope == 'mmseg':
            assert model(image).shape == (1, 150, 16, 16)
            assert model.auxiliary_head(maps).shape == (1, 150, 4, 4)
    if case not in ('cls/r50_linear_in1k.py', 'cls/r50_semi-1pct_in1k.py'):
        assert synchronised == {True}


@pytest.mark.parametrize('name', [name for name in OF_CNNS if name not in TWINS])
def test_weights_come_from_the_students_pre_training(name: str) -> None:
    start = load(name).model.backbone.init_cfg
    expected = f'work_dirs/hgkd_{student(name)}_mae/epoch_300.pth'
    assert start == dict(type='Pretrained', checkpoint=expected, prefix='backbone.')
    pretraining = load(f'pretrain/hgkd_{student(name)}_mae.py')
    assert pretraining.train_cfg.max_epochs == 300
    backbone = load(name).model.backbone
    assert pretraining.model.backbone.type == backbone.type.removeprefix('mmpretrain.')
    assert pretraining.model.backbone.get('depth') == backbone.get('depth')


@pytest.mark.parametrize('name', TWINS)
def test_twins_differ_in_the_start_only(name: str) -> None:
    twin, config = load(name), load(re.sub('_(scratch|supervised)', '', name))
    start = twin.model.backbone.pop('init_cfg')
    config.model.backbone.pop('init_cfg')
    if name.endswith('_supervised.py'):
        assert start == dict(type='Pretrained', checkpoint='torchvision://resnet50')
        # torchvision's IMAGENET1K_V1; V2 is resnet50-11ad3fa6.pth
        assert get_torchvision_models()['resnet50'].endswith('resnet50-0676ba61.pth')
    else:
        assert [s.type for s in start] == ['Kaiming', 'Constant']
        assert twin.optim_wrapper.paramwise_cfg.pop('layer_decay_rate') == 1.0
        config.optim_wrapper.paramwise_cfg.pop('layer_decay_rate')
    assert twin.to_dict() == config.to_dict()


def test_scratch_is_what_the_network_does_by_itself() -> None:
    settings = load('det/mask-rcnn_r50_fpn_1x_coco_scratch.py').model.backbone
    settings.depth = 18
    weights = []
    for own in (False, True):
        if own:
            settings.pop('init_cfg')
        torch.manual_seed(0)
        network = MODELS.build(settings)
        torch.manual_seed(0)
        network.init_weights()
        weights.append(network.state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


# (learning rate of the head, rate of decay, exponent of the stem, batch) by config
DECAYED = {
    # SparK: downstream_imagenet/arg.py and models/__init__.py, downstream_d2/lr_decay.py
    'cls/r50_ft300_in1k.py': (0.008, 0.7, 7, 2048),
    ('finetuning', 'model.backbone.depth=101'): (0.008, 0.8, 13, 2048),
    ('finetuning', 'model.backbone.depth=18'): (0.008, 0.7, 5, 2048),
    'cls/mobilenet-v2_ft300_in1k.py': (0.008, 0.7, 8, 2048),
    'det/mask-rcnn_r50_fpn_1x_coco.py': (2.5e-4, 0.6, 6, 16),
    'det/mask-rcnn_r50_fpn_3x_coco.py': (2.5e-4, 0.6, 6, 16),
    ('detection', 'model.backbone.depth=18'): (2.5e-4, 0.6, 5, 16),
    ('detection', 'model.backbone.depth=101'): (2.5e-4, 0.8, 12, 16),
    'det/mask-rcnn_mobilenet-v2_fpn_1x_coco.py': (2.5e-4, 0.7, 8, 16),
    'det/mask-rcnn_r50_fpn_1x_coco_scratch.py': (2.5e-4, 1.0, 6, 16),
    # mmseg: configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py
    'seg/upernet_r50_160k_ade20k-512x512.py': (1e-4, 0.9, 5, 16),
    'seg/upernet_r50_80k_ade20k-512x512.py': (1e-4, 0.9, 5, 16),
    ('segmentation', 'model.backbone.depth=18'): (1e-4, 0.9, 5, 16),
    ('segmentation', 'model.backbone.depth=101'): (1e-4, 0.9, 5, 16),
    'seg/upernet_mobilenet-v2_160k_ade20k-512x512.py': (1e-4, 0.9, 8, 16),
}


@pytest.mark.parametrize('case', DECAYED)
def test_learning_rates_by_layer_and_batch(case: str | tuple[str, str]) -> None:
    lr, rate, exponent, batch = DECAYED[case]
    config = read(case)
    model = build(config)
    settings = settings_by_weight(model, config)
    rates = {n: group['lr'] for n, group in settings.items()}
    (stem,) = {v for n, v in rates.items() if n.startswith(('backbone.conv1.', 'backbone.bn1.'))}
    (rest,) = {v for n, v in rates.items() if not n.startswith('backbone.')}
    assert rest == pytest.approx(lr)
    assert stem == pytest.approx(lr * rate**exponent)
    last = 'backbone.layer4.' if 'depth' in config.model.backbone else 'backbone.conv2.'
    (top,) = {v for n, v in rates.items() if n.startswith(last)}
    assert top == pytest.approx(lr * rate)
    norms = {
        f'{prefix}.{n}'
        for prefix, m in model.named_modules()
        for n, _ in m.named_parameters(recurse=False)
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    }
    exempt = {n for n, group in settings.items() if group['weight_decay'] == 0}
    assert norms <= exempt
    if config.default_scope == 'mmpretrain':
        assert exempt == {n for n, p in model.named_parameters() if p.ndim == 1}
    else:
        assert exempt == norms
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == batch


def test_fine_tuning_is_sparks_at_half_the_peak() -> None:
    config = load('cls/r50_ft300_in1k.py')
    optimizer = config.optim_wrapper.optimizer
    # SparK's peak: 2e-3 for each 256 images
    assert optimizer.lr == pytest.approx(0.5 * 2e-3 * config.auto_scale_lr.base_batch_size / 256)
    assert (optimizer.type, optimizer.weight_decay) == ('Lamb', 0.02)
    assert (optimizer.always_adapt, optimizer.bias_correction) == (True, False)
    assert optimizer.max_grad_norm == config.optim_wrapper.clip_grad.max_norm == 1
    assert config.model.backbone.drop_path_rate == 0.05
    assert documented(*DEPTHS[1]).model.backbone.drop_path_rate == 0.2
    names = [t.type for t in config.train_dataloader.dataset.pipeline]
    assert names.index('torchvision/TrivialAugmentWide') < names.index('RandomErasing')
    testing = {t.type: t for t in config.val_dataloader.dataset.pipeline}
    assert testing['CenterCrop'].crop_size / testing['ResizeEdge'].scale == pytest.approx(
        0.95, abs=0.002
    )
    ema = config.custom_hooks[1]
    assert (ema.type, 1 - ema.momentum, ema.evaluate_on_origin) == ('EMAHook', 0.9999, True)
    follows = follow(config, steps_per_epoch=4)
    assert follows[0] == pytest.approx(0.005)
    assert max(follows) == pytest.approx(1)
    assert follows.index(max(follows)) == pytest.approx(5 * 4, abs=1)
    assert follows[-1] == pytest.approx(0.001, rel=0.05)


def test_targets_are_mixed_and_smoothed_for_a_binary_loss() -> None:
    config = load('cls/r50_ft300_in1k.py')
    model = build(config)
    logits = torch.zeros(2, 1000)
    target = torch.zeros(2, 1000)
    target[0, 3] = target[1, 5] = 0.25
    target[0, 7] = target[1, 9] = 0.75
    loss = model.head.loss_module(logits, target, avg_factor=2)
    # At logit 0 every class costs log 2, whatever its target.
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    # timm's is SparK's, which smooths the mixed targets before.
    smoothed = 0.9 * target + 0.1 / 1000
    logits = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    theirs = BinaryCrossEntropy(smoothing=0, target_threshold=None)(logits, smoothed)
    loss = model.head.loss_module(logits, target, avg_factor=2)
    torch.testing.assert_close(loss, theirs)
    augments = {type(a).__name__: a.alpha for a in model.data_preprocessor.batch_augments.augments}
    assert augments == {'Mixup': 0.1, 'CutMix': 1.0}


@pytest.mark.parametrize(
    ('case', 'epochs'),
    [
        (('finetuning', 'train_cfg.max_epochs=100'), 100),
        ('cls/r50_linear_in1k.py', 90),
        ('cls/r50_semi-1pct_in1k.py', 20),
    ],
)
def test_epochs_and_schedules_end_together(case: str | tuple[str, str], epochs: int) -> None:
    config = read(case)
    assert config.train_cfg.max_epochs == config.param_scheduler[-1].end == epochs
    last = config.param_scheduler[-1]
    assert last.T_max == last.end - last.get('begin', 0)
    assert follow(config, steps_per_epoch=10)[-1] < 0.01


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


@pytest.mark.parametrize(
    ('length', 'steps', 'drops'),
    [('1x', 90_000, (60_000, 80_000)), ('3x', 270_000, (210_000, 250_000))],
)
def test_detection_schedules(length: str, steps: int, drops: tuple[int, int]) -> None:
    config = load(f'det/mask-rcnn_r50_fpn_{length}_coco.py')
    assert config.train_cfg.max_iters == steps
    rates = follow(config, scale=500)
    assert rates[0] == pytest.approx(0.01)
    assert rates[2] == pytest.approx(1, rel=0.01)
    first, second = (drop // 500 for drop in drops)
    assert rates[first - 1] == pytest.approx(1)
    assert rates[first] == rates[second - 1] == pytest.approx(0.25)
    assert rates[second] == rates[-1] == pytest.approx(0.25**2)


def test_detection_is_sparks() -> None:
    # keyu-tian/SparK downstream_d2/configs/coco_R_50_FPN_CONV_1x_moco_adam.yaml
    config = load('det/mask-rcnn_r50_fpn_1x_coco.py')
    model = build(config)
    assert model.backbone.frozen_stages == -1 and not model.backbone.norm_eval
    head = model.roi_head.bbox_head
    assert (len(head.shared_convs), len(head.shared_fcs)) == (4, 1)
    assert len(model.roi_head.mask_head.convs) == 4
    for part in (model.backbone, model.neck, head, model.roi_head.mask_head):
        norms = [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    (resize,) = (
        t for t in config.train_dataloader.dataset.pipeline if t.type == 'RandomChoiceResize'
    )
    assert [min(s) for s in resize.scales] == [480 + 32 * i for i in range(14)]
    assert {max(s) for s in resize.scales} == {1333}
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=2.5e-4, betas=(0.9, 0.999), weight_decay=1e-4
    )
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 5000


@pytest.mark.parametrize(('length', 'steps'), [('160k', 160_000), ('80k', 80_000)])
def test_segmentation_schedules(length: str, steps: int) -> None:
    config = load(f'seg/upernet_r50_{length}_ade20k-512x512.py')
    assert config.train_cfg.max_iters == steps
    rates = follow(config, scale=500)
    assert rates[0] == pytest.approx(1e-6)
    assert rates[3] == pytest.approx(1, rel=0.01)
    middle = (1500 + steps) // 2
    assert rates[middle // 500] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.01
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == steps // 10


def test_segmentation_is_mmsegs_but_for_the_backbone() -> None:
    ours = load('seg/upernet_r50_160k_ade20k-512x512.py').model
    theirs = Config.fromfile(CONFIGS / '_base_' / 'mmseg' / 'upernet_r50.py').model
    for head in ('decode_head', 'auxiliary_head'):
        assert ours[head] == {**theirs[head], 'num_classes': 150}
    assert ours.data_preprocessor.size == (512, 512)
    assert ours.backbone.type == 'mmpretrain.ResNet' and ours.pretrained is None


@pytest.mark.parametrize('name', [name for name in ALL if not name.startswith('cls')])
def test_hooks_of_this_project_are_on(name: str) -> None:
    config = load(name)
    assert [hook.type for hook in config.custom_hooks] == [
        'mmpretrain.NonFiniteLossHook',
        'PretrainedReportHook',
    ]
    assert config.log_processor.by_epoch is False
    assert 'hgkd_mm.engine' in config.custom_imports.imports


@pytest.mark.parametrize('name', ALL)
def test_every_validation_comes_after_a_checkpoint(name: str) -> None:
    """An error while validating then costs no training."""
    config = load(name)
    hook, loop = config.default_hooks.checkpoint, config.train_cfg
    by_epoch = loop.get('type', 'EpochBasedTrainLoop') == 'EpochBasedTrainLoop'
    assert hook.get('by_epoch', True) == by_epoch
    assert loop.get('val_interval', 1) % hook.interval == 0
