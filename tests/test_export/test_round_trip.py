"""The same images give the same maps in every library, from the files as users load them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from helpers.exports import (
    NETWORKS,
    assert_same,
    images,
    outputs_of,
    random_backbone,
    write_checkpoint,
)
from mmdet.registry import MODELS as MMDET_MODELS
from mmpretrain.registry import MODELS
from torch import nn

from hgkd_mm.export import PretrainedBackbone, export_backbone, read_pretrained
from hgkd_mm.export.openmmlab import to_mmdet

# float32; the libraries may order sums differently
TOLERANCE = 1e-5
RESNET = ['layer1', 'layer2', 'layer3', 'layer4']
MOBILENET = ['layer2', 'layer3', 'layer5', 'conv2']
CONVNEXT = ['stages.0', 'stages.1', 'stages.2', 'stages.3']
TIMM_MOBILENET = ['blocks.1', 'blocks.2', 'blocks.4', 'bn2']
VISION_MOBILENET = ['features.3', 'features.6', 'features.13', 'features.18']
VISION_CONVNEXT = ['features.1', 'features.3', 'features.5', 'features.7']


Export = Callable[[str, str, str], tuple[nn.Module, Path]]


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """mmpretrain's network of a name, and the file that its checkpoint was exported to."""
    folder = tmp_path_factory.mktemp('exports')

    @functools.cache
    def pretrained(name: str) -> tuple[nn.Module, PretrainedBackbone]:
        network = random_backbone(NETWORKS[name])
        checkpoint = write_checkpoint(folder / f'{name}.pth', network, NETWORKS[name])
        return network, read_pretrained(checkpoint)

    def export(name: str, target: str, suffix: str) -> tuple[nn.Module, Path]:
        network, backbone = pretrained(name)
        out = folder / f'backbone{suffix}'
        result = export_backbone(backbone, target=target, out=out)
        assert result.path == out and result.converted.report.fit.unused == ()
        return network, out

    return export


@pytest.mark.parametrize(
    ('name', 'timm_name', 'modules', 'timm_modules'),
    [
        ('resnet18', 'resnet18', RESNET, RESNET),
        ('resnet50', 'resnet50', RESNET, RESNET),
        ('resnetv1c50', 'resnet50c', RESNET, RESNET),
        ('resnetv1d50', 'resnet50d', RESNET, RESNET),
        ('resnext50', 'resnext50_32x4d', RESNET, RESNET),
        ('mobilenetv2', 'mobilenetv2_100', MOBILENET, TIMM_MOBILENET),
        ('mobilenetv2-half', 'mobilenetv2_050', MOBILENET, TIMM_MOBILENET),
        # '' is the network: its output is the pooled and normalised feature
        ('convnext-pooled', 'convnext_tiny', [*CONVNEXT, ''], [*CONVNEXT, '']),
        ('convnextv2', 'convnextv2_atto', CONVNEXT, CONVNEXT),
    ],
)
def test_timm(
    exported: Export, name: str, timm_name: str, modules: list[str], timm_modules: list[str]
) -> None:
    network, file = exported(name, 'timm', '.safetensors')
    # strict by timm's own account
    loaded = timm.create_model(timm_name, num_classes=0, checkpoint_path=str(file)).eval()
    expected = outputs_of(network, modules, images())
    assert_same(outputs_of(loaded, timm_modules, images()), expected, TOLERANCE)


@pytest.mark.parametrize('name', ['vit-small', 'deit-tiny'])
def test_timm_vit(exported: Export, name: str) -> None:
    network, file = exported(name, 'timm', '.safetensors')
    sizes = dict(img_size=64, embed_dim=24, depth=3, num_heads=2, mlp_ratio=2)
    if name == 'deit-tiny':
        sizes = dict(img_size=64)
    create = functools.partial(timm.create_model, 'vit_tiny_patch16_224', num_classes=0)
    loaded = create(**sizes, checkpoint_path=str(file)).eval()
    square = images()[..., :64]
    with torch.no_grad():
        (tokens,) = network(square)
        # Class token and patches, after the last norm.
        assert_same([loaded.forward_features(square)], [tokens], TOLERANCE)


def test_timm_convnext_normalises_its_map_as_the_pretrained_one(exported: Export) -> None:
    network, file = exported('convnext', 'timm', '.pth')
    loaded = timm.create_model(
        'convnext_tiny', num_classes=0, head_norm_first=True, checkpoint_path=str(file)
    ).eval()
    with torch.no_grad():
        assert_same([loaded.forward_features(images())], network(images())[-1:], TOLERANCE)


@pytest.mark.parametrize(
    ('name', 'make', 'modules', 'vision_modules', 'head'),
    [
        ('resnet18', 'resnet18', RESNET, RESNET, {'fc.weight', 'fc.bias'}),
        ('resnet50', 'resnet50', RESNET, RESNET, {'fc.weight', 'fc.bias'}),
        (
            'mobilenetv2',
            'mobilenet_v2',
            MOBILENET,
            VISION_MOBILENET,
            {'classifier.1.weight', 'classifier.1.bias'},
        ),
        (
            'convnext-conv',
            'convnext_tiny',
            [*CONVNEXT, ''],
            [*VISION_CONVNEXT, 'classifier.0'],
            {'classifier.2.weight', 'classifier.2.bias'},
        ),
        (
            'convnext',
            'convnext_tiny',
            CONVNEXT,
            VISION_CONVNEXT,
            {f'classifier.{i}.{kind}' for i in (0, 2) for kind in ('weight', 'bias')},
        ),
    ],
)
def test_torchvision(
    exported: Export,
    name: str,
    make: str,
    modules: list[str],
    vision_modules: list[str],
    head: set[str],
) -> None:
    network, file = exported(name, 'torchvision', '.safetensors')
    loaded = getattr(torchvision.models, make)().eval()
    result = loaded.load_state_dict(safetensors.torch.load_file(file), strict=False)
    assert set(result.missing_keys) == head and not result.unexpected_keys
    expected = outputs_of(network, modules, images())
    assert_same(outputs_of(loaded, vision_modules, images()), expected, TOLERANCE)


def test_torchvision_with_a_width(exported: Export) -> None:
    network, file = exported('mobilenetv2-half', 'torchvision', '.pth')
    loaded = torchvision.models.mobilenet_v2(width_mult=0.5).eval()
    loaded.load_state_dict(torch.load(file, weights_only=True)['state_dict'], strict=False)
    expected = outputs_of(network, MOBILENET, images())
    assert_same(outputs_of(loaded, VISION_MOBILENET, images()), expected, TOLERANCE)


@pytest.mark.parametrize(
    'name', ['resnet18', 'resnet50', 'resnetv1d50', 'resnext50', 'mobilenetv2']
)
def test_mmdet_s_own_networks(exported: Export, name: str) -> None:
    network, file = exported(name, 'mmdet', '.pth')
    config = {**NETWORKS[name], 'init_cfg': dict(type='Pretrained', checkpoint=str(file))}
    if name == 'resnext50':
        config |= dict(groups=32, base_width=4)
    loaded = MMDET_MODELS.build({**config, '_scope_': 'mmdet'})
    loaded.init_weights()
    loaded.train(False)
    with torch.no_grad():
        assert_same(loaded(images()), network(images()), 0.0)


def test_mmdet_takes_mmpretrain_s_networks(exported: Export) -> None:
    network, file = exported('convnext', 'mmdet', '.pth')
    config = {**NETWORKS['convnext'], 'type': 'mmpretrain.ConvNeXt'}
    init = dict(type='Pretrained', checkpoint=str(file))
    loaded = MMDET_MODELS.build({**config, 'init_cfg': init})
    loaded.init_weights()
    loaded.train(False)
    with torch.no_grad():
        assert_same(loaded(images()), network(images()), 0.0)


def test_a_detector_gets_the_map_of_a_transformer(exported: Export) -> None:
    network, file = exported('vit-small', 'mmdet', '.pth')
    counterpart = to_mmdet(
        read_pretrained(write_checkpoint(file.with_name('vit.pth'), network, NETWORKS['vit-small']))
    )
    config = eval(counterpart.load.removeprefix('backbone=').replace('{file}', repr(str(file))))
    assert config['out_type'] == 'featmap'
    loaded = MMDET_MODELS.build(config)
    loaded.init_weights()
    loaded.train(False)
    square = images()[..., :64]
    with torch.no_grad():
        (tokens,), (found,) = network(square), loaded(square)
        assert_same([found], [tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))], 0.0)


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'mobilenetv2', 'convnext'])
def test_mmpretrain(exported: Export, name: str) -> None:
    network, file = exported(name, 'mmpretrain', '.pth')
    init = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    loaded = MODELS.build({**NETWORKS[name], 'init_cfg': init, '_scope_': 'mmpretrain'})
    loaded.init_weights()
    loaded.train(False)
    with torch.no_grad():
        assert_same(loaded(images()), network(images()), 0.0)
