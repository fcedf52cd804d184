"""The full-scale configs of the tasks for vision transformers, from Hybrid Distill's student."""

from __future__ import annotations

import re
from pathlib import Path

import mmseg
import pytest
import torch
from helpers.downstream import (
    OF_VITS,
    VITS,
    build,
    follow,
    load,
    settings_by_weight,
    student,
)
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmpretrain.models import VisionTransformer
from torch import nn

BASE = [name for name in OF_VITS if student(name) == 'vit-b']


def test_what_users_look_for_is_there() -> None:
    cls = ['cls/vit-b_ft100_in1k.py', 'cls/vit-l_ft50_in1k.py']
    det = [f'det/mask-rcnn_{vit}_simplefpn_1x_coco.py' for vit in VITS]
    seg = [f'seg/upernet_{vit}_160k_ade20k-512x512.py' for vit in VITS]
    assert sorted([*cls, *det, *seg]) == OF_VITS


@pytest.mark.parametrize('name', OF_VITS)
def test_network_at_full_size(name: str) -> None:
    config = load(name)
    width, depth = VITS[student(name)]
    model = revert_sync_batchnorm(build(config)).eval()
    # not 224, so that the position embedding is resized, and not square
    image = torch.zeros(1, 3, 64, 96, device='meta')
    assert type(model.backbone) is VisionTransformer and len(model.backbone.layers) == depth
    with torch.no_grad():
        maps = model.backbone(image)
        if config.default_scope == 'mmpretrain':
            assert model(torch.zeros(1, 3, 224, 224, device='meta')).shape == (1, 1000)
        if config.default_scope == 'mmdet':
            assert [tuple(m.shape) for m in maps] == [(1, width, 4, 6)]
            levels = model.neck(maps)
            assert [tuple(m.shape[1:]) for m in levels[:4]] == [
                (256, 16, 24),
                (256, 8, 12),
                (256, 4, 6),
                (256, 2, 3),
            ]
            assert len(levels) == 5
            strides = [stride for stride, _ in model.rpn_head.anchor_generator.strides]
            assert strides == [4, 8, 16, 32, 64]
        if config.default_scope == 'mmseg':
            assert [tuple(m.shape) for m in maps] == [(1, width, 4, 6)] * 4
            assert [m.shape[-1] for m in model.neck(maps)] == [24, 12, 6, 3]
            assert model(image).shape == (1, 150, 16, 24)


@pytest.mark.parametrize('name', OF_VITS)
def test_weights_come_from_the_students_pre_training(name: str) -> None:
    backbone = load(name).model.backbone
    run = f'hybrid_{student(name)}_mae-clip'
    expected = dict(
        type='Pretrained', checkpoint=f'work_dirs/{run}/epoch_300.pth', prefix='backbone.'
    )
    assert backbone.init_cfg == expected
    assert (backbone.arch, backbone.patch_size) == (
        {'vit-b': 'base', 'vit-l': 'large'}[student(name)],
        16,
    )
    pretraining = load(f'pretrain/{run}.py')
    assert pretraining.train_cfg.max_epochs == 300
    assert pretraining.model.backbone.type == 'VisionTransformer'
    assert pretraining.model.backbone.arch == backbone.arch


@pytest.mark.parametrize('name', BASE)
def test_file_has_every_weight_but_the_new_norm(name: str) -> None:
    config = load(name)
    pretrained = VisionTransformer(arch='base', patch_size=16).state_dict()
    weights = build(config).backbone.state_dict()
    lacking = {key for key, value in weights.items() if key not in pretrained}
    shared = set(weights) - lacking
    assert all(weights[key].shape == pretrained[key].shape for key in shared)
    report = next(hook for hook in config.custom_hooks if hook.type == 'PretrainedReportHook')
    if name.startswith('cls'):
        # facebookresearch/mae main_finetune.py expects its fc_norm and head to be missing
        assert lacking == {'ln2.weight', 'ln2.bias'}
        assert report.allow_missing == ['backbone.ln2.*']
    else:
        assert not lacking and 'allow_missing' not in report
    # the norm of the output is what they leave in the file
    assert set(pretrained) - set(weights) == {'ln1.weight', 'ln1.bias'}


# (learning rate of the head, rate of decay, batch) by config
DECAYED = {
    # facebookresearch/mae FINETUNE.md: 5e-4 and 1e-3 for each 256 images
    'cls/vit-b_ft100_in1k.py': (2e-3, 0.65, 1024),
    'cls/vit-l_ft50_in1k.py': (4e-3, 0.75, 1024),
    # Detectron2 projects/ViTDet/configs/COCO/mask_rcnn_vitdet_{b,l}_100ep.py
    'det/mask-rcnn_vit-b_simplefpn_1x_coco.py': (1e-4, 0.7, 16),
    'det/mask-rcnn_vit-l_simplefpn_1x_coco.py': (1e-4, 0.8, 16),
    # mmseg configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py; .75 is MAE's
    'seg/upernet_vit-b_160k_ade20k-512x512.py': (1e-4, 0.65, 16),
    'seg/upernet_vit-l_160k_ade20k-512x512.py': (1e-4, 0.75, 16),
}


@pytest.mark.parametrize('name', DECAYED)
def test_learning_rates_by_layer_and_batch(name: str) -> None:
    lr, rate, batch = DECAYED[name]
    config = load(name)
    model = build(config)
    settings = settings_by_weight(model, config)
    depth = VITS[student(name)][1]
    stem = ('backbone.cls_token', 'backbone.pos_embed', 'backbone.patch_embed.')
    for key, group in settings.items():
        block = re.match(r'backbone\.layers\.(\d+)\.', key)
        layer = 0 if key.startswith(stem) else int(block[1]) + 1 if block else depth + 1
        assert group['lr'] == pytest.approx(lr * rate ** (depth + 1 - layer)), key
    exempt = {key for key, group in settings.items() if group['weight_decay'] == 0}
    tokens = {'backbone.cls_token', 'backbone.pos_embed'}
    norms = {
        f'{prefix}.{key}'
        for prefix, m in model.named_modules()
        for key, _ in m.named_parameters(recurse=False)
        if isinstance(m, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm))
    }
    biases = {key for key in settings if key.endswith('.bias')}
    assert exempt == tokens | norms | (set() if name.startswith('det') else biases)
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == batch


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
    rates = follow(load(f'cls/{name}.py'), steps_per_epoch=4)
    assert rates.index(max(rates)) == pytest.approx(5 * 4, abs=1)
    assert rates[-1] < 0.01


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
    rates = follow(config, scale=500)
    assert rates[0] == pytest.approx(0.001)
    assert rates[2] == pytest.approx(1, rel=0.01)
    assert rates[119] == pytest.approx(1) and rates[120] == pytest.approx(0.1)
    assert rates[159] == pytest.approx(0.1) and rates[160] == rates[-1] == pytest.approx(0.01)
    assert len(rates) == 180


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
