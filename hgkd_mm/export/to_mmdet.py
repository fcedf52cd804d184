"""For detectors of mmdet and segmentors of mmseg: names as their backbones have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import nn

from .families import keep_place_for_pooling
from .loading import Converted, Counterpart, load_converted
from .network import build_backbone, unusual_settings
from .source import PretrainedBackbone

_RESNET_SETTINGS = {
    'depth',
    'in_channels',
    'stem_channels',
    'base_channels',
    'num_stages',
    'strides',
    'dilations',
    'style',
    'deep_stem',
    'avg_down',
    'conv_cfg',
    'norm_cfg',
}
_MOBILENET_SETTINGS = {'widen_factor', 'conv_cfg', 'norm_cfg', 'act_cfg'}


def to_mmdet(backbone: PretrainedBackbone) -> Converted:
    """The backbone as mmdet has it, without a prefix.

    mmdet's own network where it has the same one (ResNet, V1d, ResNeXt, MobileNetV2), otherwise
    mmpretrain's, which detectors and segmentors take as ``type='mmpretrain.ConvNeXt'``.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    config = backbone.config
    found = _native(config)
    if found is None:
        network = build_backbone(config)
        arguments = {key: value for key, value in config.items() if key != 'type'}
        if 'featmap' in getattr(network, 'OUT_TYPES', ()):
            # Necks want maps; pre-training and classification take tokens.
            arguments['out_type'] = 'featmap'
        found = Counterpart(name=f'mmpretrain.{config["type"]}', rename=str, arguments=arguments)
    else:
        network = _build(found)
    weights, report = load_converted(
        network, found.renamed(backbone.weights), what=f'the backbone {found.name}'
    )
    shown = ', '.join(f'{key}={value!r}' for key, value in found.arguments.items())
    return Converted(
        network=network,
        weights=weights,
        made_by=f'dict(type={found.name!r}, {shown})',
        load=f'backbone=dict(type={found.name!r}, {shown}, '
        "init_cfg=dict(type='Pretrained', checkpoint={file}))",
        report=report,
    )


def _native(config: Mapping[str, Any]) -> Counterpart | None:
    """The network in mmdet, or None if it has none with these settings."""
    kind = config['type']
    if kind == 'MobileNetV2':
        settings, rename = _MOBILENET_SETTINGS, _rename_mobilenet
    elif kind in ('ResNet', 'ResNetV1d', 'ResNeXt'):
        settings, rename = _RESNET_SETTINGS, _resnet_names(config)
    else:
        return None
    if kind == 'ResNeXt':
        settings = settings | {'groups', 'width_per_group'}
    if unusual_settings(config, known=frozenset(settings)):
        return None
    arguments = {key: config[key] for key in config if key in settings | {'out_indices'}}
    if kind == 'ResNeXt':
        arguments['groups'] = arguments.get('groups', 32)
        arguments['base_width'] = arguments.pop('width_per_group', 4)
    return Counterpart(name=kind, rename=rename, arguments=arguments)


def _build(found: Counterpart) -> nn.Module:
    register_all_modules(init_default_scope=False)
    return MODELS.build({'type': found.name, **found.arguments, '_scope_': 'mmdet'})


def _resnet_names(config: Mapping[str, Any]) -> Callable[[str], str]:
    pooled = config['type'] == 'ResNetV1d' or config.get('avg_down', False)
    strides = config.get('strides', (1, 2, 2, 2)) if pooled else ()
    same_size = [index + 1 for index, stride in enumerate(strides) if stride == 1]
    return lambda name: _rename_stem(keep_place_for_pooling(name, same_size))


def _rename_stem(name: str) -> str:
    # mmpretrain has three modules of convolution, norm and ReLU, mmdet the nine in a row
    stem = re.fullmatch(r'stem\.(\d)\.(conv|bn)\.(\w+)', name)
    if stem is None:
        return name
    index, part, kind = stem.groups()
    return f'stem.{3 * int(index) + (part == "bn")}.{kind}'


def _rename_mobilenet(name: str) -> str:
    # layer2.0.conv.1.conv.weight: the second of three steps, its convolution
    block = re.fullmatch(r'(layer\d)\.(\d+)\.conv\.(\d)\.(.*)', name)
    if block is None:
        return name
    stage, index, step, rest = block.groups()
    # the first stage does not widen
    first = 1 if stage == 'layer1' else 0
    steps = ('expand_conv', 'depthwise_conv', 'linear_conv')
    return f'{stage}.{index}.{steps[first + int(step)]}.{rest}'
