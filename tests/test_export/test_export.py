"""What is refused, what is written beside the weights, and that files are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from helpers.exports import random_backbone
from safetensors import safe_open

from hgkd_mm import __version__
from hgkd_mm.export import PretrainedBackbone, Provenance, convert, export_backbone
from hgkd_mm.export.counterparts import to_timm, to_torchvision

RESNET = dict(type='ResNet', depth=18)
CONVERTERS = {'timm': to_timm, 'torchvision': to_torchvision}


def pretrained(config: dict, weights: dict | None = None) -> PretrainedBackbone:
    """A backbone as it is read from a file; its weights are those of ResNet-18 if not given."""
    provenance = Provenance(
        source='epoch_4.pth',
        sha256='ab' * 32,
        method='HGKD',
        backbone=config,
        images=dict(mean=[1.0, 2.0, 3.0]),
        epoch=4,
        config='model = dict()',
    )
    state = random_backbone(RESNET).state_dict() if weights is None else weights
    return PretrainedBackbone(weights=state, config=config, provenance=provenance)


def bare(config: dict) -> PretrainedBackbone:
    """With weights that fit, and are all zero."""
    network = random_backbone(config)
    return pretrained(config, {k: torch.zeros_like(v) for k, v in network.state_dict().items()})


EXPECTED = {
    'hgkd_mm_version': __version__,
    'method': 'HGKD',
    'source': 'epoch_4.pth',
    'source_sha256': 'ab' * 32,
    'epoch': '4',
    'backbone': json.dumps(RESNET),
    'images': '{"mean": [1.0, 2.0, 3.0]}',
    'config': 'model = dict()',
}


def test_metadata_in_safetensors(tmp_path: Path) -> None:
    export_backbone(pretrained(RESNET), target='timm', out=tmp_path / 'b.safetensors')
    with safe_open(tmp_path / 'b.safetensors', 'pt') as file:
        found = file.metadata()
    network = "timm.create_model('resnet18', num_classes=0)"
    assert found == EXPECTED | dict(target='timm', network=network)


def test_metadata_in_pth(tmp_path: Path) -> None:
    export_backbone(pretrained(RESNET), target='mmpretrain', out=tmp_path / 'b.pth')
    content = torch.load(tmp_path / 'b.pth', weights_only=True)
    network = "dict(type='ResNet', depth=18)"
    assert content['meta'] == EXPECTED | dict(target='mmpretrain', network=network)
    assert all(name.startswith('backbone.') for name in content['state_dict'])


def test_the_line_that_loads_is_python(tmp_path: Path) -> None:
    result = export_backbone(
        pretrained({**RESNET, 'norm_cfg': dict(type='BN')}), target='mmdet', out=tmp_path / 'b.pth'
    )
    config = eval(f'dict({result.load_line()})')
    assert config['backbone'] == dict(
        type='ResNet',
        depth=18,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'b.pth')),
    )


def test_half_precision_weights_become_float32() -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in bare(RESNET).weights.items()}
    converted = convert(pretrained(RESNET, halves), 'torchvision')
    assert converted.weights['conv1.weight'].dtype == torch.float32
    assert converted.weights['bn1.num_batches_tracked'].dtype == torch.int64


@pytest.mark.parametrize('target', ['timm', 'torchvision', 'mmdet', 'mmpretrain'])
def test_counters_of_norms_are_no_weights(tmp_path: Path, target: str) -> None:
    # files of old torch and converted ones have none, and training starts from them
    whole = pretrained(RESNET)
    few = {k: v for k, v in whole.weights.items() if not k.endswith('num_batches_tracked')}
    found = export_backbone(pretrained(RESNET, few), target=target, out=tmp_path / 'b.pth')
    report = found.converted.report
    assert report.fit.loaded == 100 and report.fit.unused == ()
    assert set(report.fit.missing) <= {'fc.weight', 'fc.bias'}
    assert len(found.converted.weights) == 100
    expected = convert(whole, target).weights
    for name, value in found.converted.weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_timm_reads_a_file_without_counters(tmp_path: Path) -> None:
    weights = pretrained(RESNET).weights
    few = {k: v for k, v in weights.items() if not k.endswith('num_batches_tracked')}
    out = tmp_path / 'b.safetensors'
    export_backbone(pretrained(RESNET, few), target='timm', out=out)
    network = timm.create_model('resnet18', num_classes=0, checkpoint_path=str(out))
    assert torch.equal(network.conv1.weight, weights['conv1.weight'])


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    weights = {**pretrained(RESNET).weights, 'fc.weight': torch.zeros(2)}
    with pytest.raises(ValueError, match=r'100 of 100 .* 1 in the file not used: back'):
        export_backbone(pretrained(RESNET, weights), target='timm', out=tmp_path / 'b.pth')
    assert list(tmp_path.iterdir()) == []


def test_what_torchvision_has_no_place_for_is_listed() -> None:
    arch = dict(type='ConvNeXt', arch='tiny', out_indices=(1, 3), gap_before_final_norm=False)
    report = convert(bare(arch), 'torchvision').report
    assert report.left_out == {
        'norm1.weight': 'norms of earlier maps; torchvision normalizes the last only',
        'norm1.bias': 'norms of earlier maps; torchvision normalizes the last only',
        'norm3.weight': 'torchvision normalizes after pooling, this network before',
        'norm3.bias': 'torchvision normalizes after pooling, this network before',
    }
    lines = report.lines()
    assert lines[0] == 'loaded      178 of 182'
    assert lines[1] == (
        'missing     4 (of the classifier: classifier.0.weight, classifier.0.bias, '
        'classifier.2.weight, classifier.2.bias)'
    )
    assert lines[3].startswith('left out    2 (norm1.weight, norm1.bias): norms of earlier maps')


@pytest.mark.parametrize('target', ['timm', 'torchvision', 'mmdet', 'mmpretrain', 'onnx'])
def test_other_weights_than_the_config_says_are_refused(tmp_path: Path, target: str) -> None:
    deeper = pretrained(dict(type='ResNet', depth=34))
    out = tmp_path / 'b.onnx' if target == 'onnx' else tmp_path / 'b.pth'
    with pytest.raises(ValueError, match=r'do not fit .*80 missing: backbone\.layer1\.2'):
        export_backbone(deeper, target=target, out=out)
    wider = pretrained({**RESNET, 'base_channels': 32})
    with pytest.raises(ValueError, match=r'another shape: .* is \(64, 64, 3, 3\), needed \(32,'):
        export_backbone(wider, target=target, out=out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('config', 'libraries', 'shown'),
    [
        (dict(type='ResNet', depth=50, style='caffe'), ['timm', 'torchvision'], "style='caffe'"),
        (dict(type='ResNetV1d', depth=50), ['torchvision'], 'depth=50'),
        (dict(type='ResNet', depth=18, deep_stem=True), ['timm'], 'deep_stem=True'),
        (dict(type='ResNet', depth=50, avg_down=True), ['timm', 'torchvision'], 'avg_down=True'),
        (
            dict(type='ResNet', depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
            ['timm', 'torchvision'],
            'strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)',
        ),
        (
            dict(type='ResNet', depth=18, base_channels=32),
            ['timm', 'torchvision'],
            'base_channels=32',
        ),
        (
            dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=32)),
            ['timm', 'torchvision'],
            "norm_cfg={'type': 'GN', 'num_groups': 32}",
        ),
        (dict(type='ResNeXt', depth=50, groups=16), ['timm', 'torchvision'], 'groups=16'),
        (dict(type='MobileNetV2', widen_factor=0.3), ['timm'], 'widen_factor=0.3'),
        (
            dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])),
            ['timm', 'torchvision'],
            'arch=',
        ),
        (
            dict(type='ConvNeXt', arch='tiny', use_grn=True),
            ['timm', 'torchvision'],
            "arch='tiny', use_grn=True",
        ),
        (
            dict(type='ConvNeXt', arch='atto', use_grn=True, layer_scale_init_value=0.0),
            ['torchvision'],
            "arch='atto', use_grn=True",
        ),
        (dict(type='RegNet', arch='regnetx_400mf'), ['timm', 'torchvision'], 'RegNet'),
    ],
)
def test_networks_without_a_counterpart(config: dict, libraries: list[str], shown: str) -> None:
    # refused for what the config says, before a weight is looked at
    backbone = pretrained(config, {})
    for library in libraries:
        with pytest.raises(ValueError) as refused:
            CONVERTERS[library](backbone)
        message = str(refused.value)
        assert message.startswith(f'{library} has no counterpart of {config["type"]}')
        assert shown in message and '--to mmpretrain' in message


def test_mmdet_takes_what_its_own_resnet_knows() -> None:
    converted = convert(bare(dict(type='ResNet', depth=50, style='caffe')), 'mmdet')
    assert converted.made_by == "dict(type='ResNet', depth=50, style='caffe')"
    assert type(converted.network).__module__ == 'mmdet.models.backbones.resnet'
    assert converted.network.layer2[0].conv1.stride == (2, 2)
    grouped = convert(bare(dict(type='RegNet', arch='regnetx_400mf')), 'mmdet')
    assert grouped.made_by.startswith("dict(type='mmpretrain.RegNet'")


def test_caffe_style_of_basic_blocks_is_no_difference() -> None:
    converted = convert(bare({**RESNET, 'style': 'caffe'}), 'timm')
    assert converted.made_by == "timm.create_model('resnet18', num_classes=0)"


@pytest.mark.parametrize(
    ('target', 'name', 'values'),
    [
        ('mmdet', 'b.safetensors', r'mmdet .*\.pth.*b\.safetensors'),
        ('timm', 'b.onnx', r'timm .*\.safetensors .*\.pth.*b\.onnx'),
        ('onnx', 'b.pth', r'onnx .*\.onnx.*b\.pth'),
        ('keras', 'b.pth', r"mmpretrain, mmdet, timm, torchvision, onnx.*'keras"),
    ],
)
def test_wrong_names_of_files_and_targets(
    tmp_path: Path, target: str, name: str, values: str
) -> None:
    with pytest.raises(ValueError, match=values):
        export_backbone(pretrained(RESNET), target=target, out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='gone'):
        export_backbone(pretrained(RESNET), target='timm', out=tmp_path / 'gone' / 'b.pth')
