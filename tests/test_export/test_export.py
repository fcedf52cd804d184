"""What is refused, what is written beside the weights, and that files are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from helpers.exports import random_backbone
from safetensors import safe_open

from hgkd_mm.export import PretrainedBackbone, convert, export_backbone
from hgkd_mm.export.counterparts import to_timm, to_torchvision

RESNET = dict(type='ResNet', depth=18)
CONVERTERS = {'timm': to_timm, 'torchvision': to_torchvision}
METADATA = {'method': 'HGKD', 'epoch': '4', 'backbone': json.dumps(RESNET)}


def pretrained(config: dict, weights: dict | None = None) -> PretrainedBackbone:
    """A backbone as it is read from a file; its weights are those of ResNet-18 if not given."""
    state = random_backbone(RESNET).state_dict() if weights is None else weights
    return PretrainedBackbone(weights=state, config=config, metadata=METADATA)


def without_counters(weights: dict) -> dict:
    return {k: v for k, v in weights.items() if not k.endswith('num_batches_tracked')}


def test_metadata_in_safetensors(tmp_path: Path) -> None:
    export_backbone(pretrained(RESNET), target='timm', out=tmp_path / 'b.safetensors')
    with safe_open(tmp_path / 'b.safetensors', 'pt') as file:
        found = file.metadata()
    network = "timm.create_model('resnet18', num_classes=0)"
    assert found == METADATA | dict(target='timm', network=network)


def test_metadata_in_pth(tmp_path: Path) -> None:
    export_backbone(pretrained(RESNET), target='mmpretrain', out=tmp_path / 'b.pth')
    content = torch.load(tmp_path / 'b.pth', weights_only=True)
    network = "dict(type='ResNet', depth=18)"
    assert content['meta'] == METADATA | dict(target='mmpretrain', network=network)
    assert all(name.startswith('backbone.') for name in content['state_dict'])


def test_half_precision_weights_become_float32() -> None:
    weights = pretrained(RESNET).weights
    halves = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    converted = convert(pretrained(RESNET, halves), 'torchvision')
    assert converted.weights['conv1.weight'].dtype == torch.float32
    assert converted.weights['bn1.num_batches_tracked'].dtype == torch.int64


@pytest.mark.parametrize('target', ['timm', 'torchvision', 'mmpretrain'])
def test_counters_of_norms_are_no_weights(target: str) -> None:
    # files of old torch and converted ones have none, and training starts from them
    whole = pretrained(RESNET)
    found = convert(pretrained(RESNET, without_counters(whole.weights)), target)
    assert found.fit.loaded == 100 and found.fit.unused == ()
    assert set(found.fit.missing) == (
        {'fc.weight', 'fc.bias'} if target == 'torchvision' else set()
    )
    expected = without_counters(convert(whole, target).weights)
    torch.testing.assert_close(dict(found.weights), expected, rtol=0, atol=0)


def test_timm_reads_a_file_without_counters(tmp_path: Path) -> None:
    weights = pretrained(RESNET).weights
    out = tmp_path / 'b.safetensors'
    export_backbone(pretrained(RESNET, without_counters(weights)), target='timm', out=out)
    network = timm.create_model('resnet18', num_classes=0, checkpoint_path=str(out))
    assert torch.equal(network.conv1.weight, weights['conv1.weight'])


def test_what_torchvision_has_no_place_for_is_listed() -> None:
    arch = dict(type='ConvNeXt', arch='tiny', out_indices=(1, 3), gap_before_final_norm=False)
    found = convert(pretrained(arch, random_backbone(arch).state_dict()), 'torchvision')
    assert found.left_out == ('norm1.weight', 'norm1.bias', 'norm3.weight', 'norm3.bias')
    assert found.fit.missing == tuple(
        f'classifier.{i}.{kind}' for i in (0, 2) for kind in ('weight', 'bias')
    )
    assert (found.fit.loaded, found.fit.total) == (178, 182)


@pytest.mark.parametrize(
    ('config', 'further', 'sentence'),
    [
        (dict(depth=34), [], r'do not fit .*80 missing: backbone\.layer1\.2'),
        (dict(base_channels=32), [], r'another shape: .* is \(64, 64, 3, 3\), needed \(32,'),
        ({}, ['fc.weight'], r'100 of 100 .* 1 in the file not used: back'),
    ],
)
@pytest.mark.parametrize('target', ['timm', 'onnx'])
def test_other_weights_than_the_config_says_are_refused(
    tmp_path: Path, target: str, config: dict, further: list[str], sentence: str
) -> None:
    weights = pretrained(RESNET).weights | {name: torch.zeros(2) for name in further}
    out = tmp_path / ('b.onnx' if target == 'onnx' else 'b.pth')
    with pytest.raises(ValueError, match=sentence):
        export_backbone(pretrained({**RESNET, **config}, weights), target=target, out=out)
    assert list(tmp_path.iterdir()) == []


BOTH = ['timm', 'torchvision']


@pytest.mark.parametrize(
    ('config', 'libraries', 'shown'),
    [
        (dict(type='ResNet', depth=50, style='caffe'), ['timm'], "style='caffe'"),
        (dict(type='ResNetV1d', depth=18), ['torchvision'], 'depth=18'),
        (dict(type='ResNet', depth=18, avg_down=True), BOTH, 'avg_down=True'),
        (
            dict(type='ResNet', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
            ['timm'],
            'strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)',
        ),
        (dict(type='ResNet', depth=18, base_channels=32), ['timm'], 'base_channels=32'),
        (
            dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=32)),
            ['torchvision'],
            "norm_cfg={'type': 'GN', 'num_groups': 32}",
        ),
        (dict(type='ResNet', depth=18, norm_cfg=dict(type='BN', eps=1e-4)), BOTH, "'eps': 0.0001"),
        (dict(type='ResNeXt', depth=50, groups=16), ['timm'], 'groups=16'),
        (dict(type='MobileNetV2', widen_factor=0.3), ['timm'], 'widen_factor=0.3'),
        (
            dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])),
            BOTH,
            'arch=',
        ),
        (dict(type='ConvNeXt', arch='atto', use_grn=True), BOTH, "arch='atto', use_grn=True"),
        (dict(type='RegNet', arch='regnetx_400mf'), BOTH, 'regnetx_400mf'),
    ],
)
def test_networks_without_a_counterpart(config: dict, libraries: list[str], shown: str) -> None:
    # refused for what the network computes, before a weight is looked at
    backbone = pretrained(config, {})
    for library in libraries:
        with pytest.raises(ValueError) as refused:
            CONVERTERS[library](backbone)
        message = str(refused.value)
        assert message.startswith(f'{library} has no counterpart of {config["type"]}')
        assert shown in message and '--to mmpretrain' in message


def test_settings_that_change_no_map_are_no_difference() -> None:
    settings = dict(style='caffe', drop_path_rate=0.1, frozen_stages=1, zero_init_residual=True)
    converted = convert(pretrained({**RESNET, **settings}), 'timm')
    assert converted.made_by == "timm.create_model('resnet18', num_classes=0)"


@pytest.mark.parametrize(
    ('target', 'name', 'error', 'values'),
    [
        ('mmpretrain', 'b.safetensors', ValueError, r'mmpretrain .*\.pth.*b\.safetensors'),
        ('timm', 'b.onnx', ValueError, r'timm .*\.safetensors .*\.pth.*b\.onnx'),
        ('onnx', 'b.pth', ValueError, r'onnx .*\.onnx.*b\.pth'),
        ('keras', 'b.pth', ValueError, r"mmpretrain, timm, torchvision, onnx.*'keras"),
        ('timm', 'gone/b.pth', FileNotFoundError, 'gone'),
    ],
)
def test_wrong_names_of_files_and_targets(
    tmp_path: Path, target: str, name: str, error: type[Exception], values: str
) -> None:
    with pytest.raises(error, match=values):
        export_backbone(pretrained(RESNET, {}), target=target, out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []
