"""Learning rates by layer, against mmpretrain's own, SparK's tables and MMEngine's rules."""

from __future__ import annotations

import logging
from typing import Any

import mmdet.registry
import mmengine.registry
import mmpretrain.registry
import mmseg.registry
import pytest
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmpretrain.models import ConvNeXt, ImageClassifier, MobileNetV2, ResNet, VisionTransformer
from mmseg.models.backbones import VisionTransformer as SegmentorsTransformer
from torch import nn

import hgkd_mm.engine  # noqa: F401  (registers mmpretrain's hooks and this constructor)
from hgkd_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor, layer_ids

OURS = 'LayerDecayOptimWrapperConstructor'


def resnet(depth: int, **changes: Any) -> nn.Module:
    return ResNet(depth=depth, out_indices=(0, 1, 2, 3), **changes)


class Detector(nn.Module):
    """A backbone with something before and behind it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.stem_of_the_neck = nn.Conv2d(2, 2, 1)
        self.backbone = backbone
        self.rpn_head = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.GroupNorm(1, 2))


def optimization(
    model: nn.Module, constructor: str = OURS, *, lr: float = 1.0, **paramwise: Any
) -> OptimWrapper:
    return mmengine.registry.OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=constructor,
            optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=lr, weight_decay=0.1)),
            paramwise_cfg=paramwise,
        )
    )(model)


def by_name(model: nn.Module, wrapper: OptimWrapper, key: str) -> dict[str, float]:
    groups = wrapper.optimizer.param_groups
    values = {id(p): group[key] for group in groups for p in group['params']}
    assert len(values) == sum(len(group['params']) for group in groups)
    return {name: values[id(p)] for name, p in model.named_parameters() if id(p) in values}


def test_groups_are_those_of_mmpretrain() -> None:
    model = ImageClassifier(
        backbone=dict(type='mmpretrain.ResNet', depth=101),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=2048),
    )
    rules = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)
    ours = optimization(model, layer_decay_rate=0.7, blocks_per_group=(3, 2, 3, 3), **rules)
    theirs = optimization(
        model, 'mmpretrain.LearningRateDecayOptimWrapperConstructor', layer_decay_rate=0.7, **rules
    )
    for key in ('lr', 'weight_decay'):
        assert by_name(model, ours, key) == pytest.approx(by_name(model, theirs, key))
    # Theirs has a group a tensor; ours one for each pair of learning rate and weight decay.
    assert len(ours.optimizer.param_groups) == 2 * 14
    assert len(theirs.optimizer.param_groups) == len(list(model.parameters()))


def test_ids_are_those_of_spark_on_coco() -> None:
    # keyu-tian/SparK downstream_d2/lr_decay.py: stem 0, res2 1, res3 2, res4 3 and 4, res5 5,
    # the rest 6; timm's layerN is Detectron2's res(N+1).
    ids = {
        'backbone.conv1.weight': 0,
        'backbone.bn1.bias': 0,
        'backbone.layer1.2.conv3.weight': 1,
        'backbone.layer2.0.downsample.0.weight': 2,
        'backbone.layer2.3.conv1.weight': 2,
        'backbone.layer3.0.conv1.weight': 3,
        'backbone.layer3.2.bn3.weight': 3,
        'backbone.layer3.3.conv1.weight': 4,
        'backbone.layer3.5.conv3.weight': 4,
        'backbone.layer4.2.conv3.weight': 5,
        'stem_of_the_neck.weight': 6,
        'rpn_head.0.weight': 6,
    }
    model = Detector(resnet(50))
    decay = dict(layer_decay_rate=0.6, blocks_per_group=(3, 4, 3, 3))
    rates = by_name(model, optimization(model, lr=2.5e-4, **decay), 'lr')
    assert set(rates) == {name for name, _ in model.named_parameters()}
    expected = {name: 2.5e-4 * 0.6 ** (6 - i) for name, i in ids.items()}
    assert {name: rates[name] for name in ids} == pytest.approx(expected)


def test_a_stage_is_a_group_and_what_follows_the_last_belongs_to_it() -> None:
    ids, head = layer_ids(MobileNetV2(out_indices=(1, 2, 4, 7)))
    assert head == 8
    assert ids['conv1.conv.weight'] == 0
    assert [ids[f'layer{i}.0.conv.0.conv.weight'] for i in range(1, 8)] == [1, 2, 3, 4, 5, 6, 7]
    assert ids['conv2.bn.weight'] == 7


ARCH = dict(embed_dims=8, num_layers=4, num_heads=2, feedforward_channels=16)


def transformer(**changes: Any) -> nn.Module:
    return VisionTransformer(arch=ARCH, img_size=32, patch_size=16, **changes)


def test_a_transformers_groups_are_those_of_mmpretrain() -> None:
    model = ImageClassifier(
        backbone=dict(
            type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, out_type='avg_featmap'
        ),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=8),
    )
    keys = {name: dict(decay_mult=0.0) for name in ('.ln', '.bias', '.cls_token', '.pos_embed')}
    rules = dict(layer_decay_rate=0.65, custom_keys=keys)
    ours = optimization(model, **rules)
    theirs = optimization(model, 'mmpretrain.LearningRateDecayOptimWrapperConstructor', **rules)
    for key in ('lr', 'weight_decay'):
        assert by_name(model, ours, key) == pytest.approx(by_name(model, theirs, key))
    assert len(ours.optimizer.param_groups) == 2 * 6


def test_a_transformers_ids_in_a_detector() -> None:
    # facebookresearch/mae util/lr_decay.py and Detectron2's get_vit_lr_decay_rate, for 4 blocks
    ids = {
        'backbone.cls_token': 0,
        'backbone.pos_embed': 0,
        'backbone.patch_embed.projection.weight': 0,
        'backbone.layers.0.ln1.weight': 1,
        'backbone.layers.0.attn.qkv.weight': 1,
        'backbone.layers.2.ffn.layers.1.bias': 3,
        'backbone.layers.3.ln2.bias': 4,
        'backbone.ln1.weight': 5,
        'stem_of_the_neck.weight': 5,
        'rpn_head.0.weight': 5,
    }
    model = Detector(transformer(out_type='featmap'))
    rates = by_name(model, optimization(model, lr=1e-4, layer_decay_rate=0.7), 'lr')
    assert set(rates) == {name for name, _ in model.named_parameters()}
    assert {n: rates[n] for n in ids} == pytest.approx(
        {name: 1e-4 * 0.7 ** (5 - i) for name, i in ids.items()}
    )


def test_transformers_of_other_kinds() -> None:
    settings = dict(img_size=32, embed_dims=8, num_layers=3, num_heads=2, final_norm=True)
    ids, _ = layer_ids(SegmentorsTransformer(**settings))
    names = ('pos_embed', 'patch_embed.projection.weight', 'layers.2.ln1.weight', 'ln1.weight')
    assert [ids[name] for name in names] == [0, 0, 3, 4]
    assert layer_ids(transformer(pre_norm=True))[0]['pre_norm.weight'] == 0
    ids, head = layer_ids(transformer(), (2,))
    assert head == 3
    assert [ids[f'layers.{i}.ln1.weight'] for i in range(4)] == [1, 1, 2, 2]


@pytest.mark.parametrize('registry', [mmpretrain.registry, mmdet.registry, mmseg.registry])
def test_every_scope_finds_it(registry: Any) -> None:
    assert registry.OPTIM_WRAPPER_CONSTRUCTORS.get(OURS) is LayerDecayOptimWrapperConstructor


def test_without_decay_it_is_mmengines_default() -> None:
    model = Detector(resnet(18))
    rules = dict(
        norm_decay_mult=0.25,
        bias_decay_mult=0.5,
        flat_decay_mult=0.0,
        custom_keys={
            'layer4': dict(lr_mult=3.0),
            'layer4.1.bn': dict(lr_mult=2.0, decay_mult=0.75),
            'neck': dict(decay_mult=0.0),
        },
    )
    ours = optimization(model, **rules)
    theirs = optimization(model, 'DefaultOptimWrapperConstructor', **rules)
    for key in ('lr', 'weight_decay'):
        assert by_name(model, ours, key) == pytest.approx(by_name(model, theirs, key))
    assert len(ours.optimizer.param_groups) == 5


def test_custom_keys_frozen_and_shared_weights() -> None:
    model = Detector(resnet(18, frozen_stages=1))
    model.backbone.train()
    model.again = model.rpn_head
    keys = {'layer2': dict(lr_mult=10.0, momentum=0.5)}
    wrapper = optimization(model, layer_decay_rate=0.5, custom_keys=keys)
    trained, momenta = by_name(model, wrapper, 'lr'), by_name(model, wrapper, 'momentum')
    name = 'backbone.layer2.0.conv1.weight'
    assert trained[name] == pytest.approx(10 * 0.5**3)
    assert (momenta[name], momenta['rpn_head.0.weight']) == (0.5, 0)
    assert set(trained) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(n.startswith(('backbone.conv1', 'backbone.layer1')) for n in trained)


def test_log_has_a_line_a_layer() -> None:
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        optimization(Detector(resnet(18)), lr=0.32, layer_decay_rate=0.5)
    finally:
        logger.removeHandler(handler)
    lines = [line for line in lines if line.startswith('Layer')]  # MMEngine's own: its options
    assert len(lines) == 6
    assert lines[0].startswith('Layer 0 of 5: lr 0.01, 3 tensors, backbone.conv1.weight')
    assert lines[5].startswith('Layer 5 of 5: lr 0.32, 5 tensors, ')


@pytest.mark.parametrize(
    ('backbone', 'groups', 'sentence'),
    [
        (lambda: ConvNeXt(arch='atto'), None, 'ConvNeXt .*downsample_layers, stages'),
        (lambda: resnet(18), (2, 2), r'blocks_per_group.*\[2, 2, 2, 2\].*\[2, 2\]'),
        (transformer, (2, 2), r'blocks_per_group.*\[4\].*\[2, 2\]'),
        (lambda: resnet(18), (2, 2, 0, 2), r'blocks_per_group.*\[2, 2, 0, 2\]'),
    ],
)
def test_backbones_without_such_layers(backbone: Any, groups: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        layer_ids(backbone(), groups)


@pytest.mark.parametrize(
    ('model', 'settings', 'sentence'),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 1)), {}, 'model.backbone.*Sequential'),
        (lambda: Detector(resnet(18)), dict(decay_rate=0.5), 'decay_rate .*paramwise_cfg'),
        (lambda: Detector(resnet(18)), dict(lr=None), 'optim_wrapper.optimizer.lr'),
    ],
)
def test_models_and_settings_that_are_refused(model: Any, settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        optimization(model(), **{'layer_decay_rate': 0.5, **settings})
