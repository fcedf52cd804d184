"""The same images give the same maps in every library, from the files as users load them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import mmdet.models  # noqa: F401  registers the networks
import mmseg.models  # noqa: F401
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
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from hgkd_mm.export import PretrainedBackbone, export_backbone, read_pretrained

# float32; the libraries may order sums differently
TOLERANCE = 1e-5
RESNET = ['layer1', 'layer2', 'layer3', 'layer4']
MOBILENET = ['layer2', 'layer3', 'layer5', 'conv2']
CONVNEXT = ['stages.0', 'stages.1', 'stages.2', 'stages.3']
TIMM_MOBILENET = ['blocks.1', 'blocks.2', 'blocks.4', 'bn2']
VISION_MOBILENET = ['features.3', 'features.6', 'features.13', 'features.18']
VISION_CONVNEXT = ['features.1', 'features.3', 'features.5', 'features.7']


REGISTRIES = {'mmdet': MMDET_MODELS, 'mmseg': MMSEG_MODELS}
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
        assert result.path == out and result.converted.fit.unused == ()
        return network, out

    return export


@pytest.mark.parametrize(
    ('name', 'timm_name', 'modules', 'timm_modules'),
    [
        ('resnet18', 'resnet18', RESNET, RESNET),
        ('resnetv1c50', 'resnet50c', RESNET, RESNET),
        ('resnetv1d18', 'resnet18d', RESNET, RESNET),
        ('resnext50', 'resnext50_32x4d', RESNET, RESNET),
        ('mobilenetv2-half', 'mobilenetv2_050', MOBILENET, TIMM_MOBILENET),
        # '' is the network: its output is the pooled and normalised feature
        ('convnext-pooled', 'convnext_atto', [*CONVNEXT, ''], [*CONVNEXT, '']),
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


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('vit-small', dict(img_size=64, embed_dim=24, depth=3, num_heads=2, mlp_ratio=2)),
        ('deit-tiny', dict(img_size=64)),
    ],
)
def test_timm_vit(exported: Export, name: str, sizes: dict) -> None:
    network, file = exported(name, 'timm', '.safetensors')
    loaded = timm.create_model(
        'vit_tiny_patch16_224', num_classes=0, **sizes, checkpoint_path=str(file)
    ).eval()
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
        ('resnet50', torchvision.models.resnet50, RESNET, RESNET, ['fc']),
        (
            'mobilenetv2-half',
            functools.partial(torchvision.models.mobilenet_v2, width_mult=0.5),
            MOBILENET,
            VISION_MOBILENET,
            ['classifier.1'],
        ),
        (
            'convnext-conv',
            torchvision.models.convnext_tiny,
            [*CONVNEXT, ''],
            [*VISION_CONVNEXT, 'classifier.0'],
            ['classifier.2'],
        ),
        (
            'convnext',
            torchvision.models.convnext_tiny,
            CONVNEXT,
            VISION_CONVNEXT,
            ['classifier.0', 'classifier.2'],
        ),
    ],
)
def test_torchvision(
    exported: Export,
    name: str,
    make: Callable[[], nn.Module],
    modules: list[str],
    vision_modules: list[str],
    head: list[str],
) -> None:
    network, file = exported(name, 'torchvision', '.safetensors')
    loaded = make().eval()
    result = loaded.load_state_dict(safetensors.torch.load_file(file), strict=False)
    assert set(result.missing_keys) == {f'{i}.{kind}' for i in head for kind in ('weight', 'bias')}
    assert not result.unexpected_keys
    expected = outputs_of(network, modules, images())
    assert_same(outputs_of(loaded, vision_modules, images()), expected, TOLERANCE)


@pytest.mark.parametrize('name', ['resnet18', 'convnextv2'])
def test_mmpretrain(exported: Export, name: str) -> None:
    network, file = exported(name, 'mmpretrain', '.pth')
    init = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    loaded = MODELS.build({**NETWORKS[name], 'init_cfg': init, '_scope_': 'mmpretrain'})
    loaded.init_weights()
    loaded.train(False)
    with torch.no_grad():
        assert_same(loaded(images()), network(images()), 0.0)


@pytest.mark.parametrize('kind', ['mmdet.ResNet', 'mmseg.ResNet', 'mmdet.ResNeXt'])
def test_mmdet_and_mmseg_take_the_checkpoint_itself(tmp_path: Path, kind: str) -> None:
    scope, own = kind.split('.')
    depth = 50 if own == 'ResNeXt' else 18
    config = dict(type=own, depth=depth, out_indices=(0, 1, 2, 3))
    network = random_backbone(config)
    checkpoint = write_checkpoint(tmp_path / 'e.pth', network, config)
    init = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    width = dict(groups=32, base_width=4) if own == 'ResNeXt' else {}
    loaded = REGISTRIES[scope].build({**config, **width, 'init_cfg': init, '_scope_': scope})
    loaded.init_weights()
    loaded.train(False)
    assert type(loaded).__module__.startswith(scope)
    with torch.no_grad():
        assert_same(loaded(images()), network(images()), 0.0)
