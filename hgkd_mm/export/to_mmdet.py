"""For detectors of mmdet and segmentors of mmseg: names as their backbones have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import nn

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
        found = Counterpart(name=f'mmpretrain.{config["type"]}', rename=str, arguments=_own(config))
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


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != 'type'}


def _native(config: Mapping[str, Any]) -> Counterpart | None:
    """The network in mmdet, or None if it has none with these settings."""
    kind = config['type']
    settings = _MOBILENET_SETTINGS if kind == 'MobileNetV2' else _RESNET_SETTINGS
    renames = {
        'ResNet': _rename_stem,
        'ResNetV1d': _rename_stem,
        'ResNeXt': _rename_stem,
        'MobileNetV2': str,
    }
    if kind == 'ResNeXt':
        settings = settings | {'groups', 'width_per_group'}
    if kind not in renames or unusual_settings(config, known=frozenset(settings)):
        return None
    arguments = {key: config[key] for key in config if key in settings | {'out_indices'}}
    if kind == 'ResNeXt':
        arguments['groups'] = arguments.get('groups', 32)
        arguments['base_width'] = arguments.pop('width_per_group', 4)
    return Counterpart(name=kind, rename=renames[kind], arguments=arguments)


def _build(found: Counterpart) -> nn.Module:
    register_all_modules(init_default_scope=False)
    return MODELS.build({'type': found.name, **found.arguments, '_scope_': 'mmdet'})


def _rename_stem(name: str) -> str:
    # mmpretrain has three modules of convolution, norm and ReLU, mmdet the nine in a row
    stem = re.fullmatch(r'stem\.(\d)\.(conv|bn)\.(\w+)', name)
    if stem is None:
        return name
    index, part, kind = stem.groups()
    return f'stem.{3 * int(index) + (part == "bn")}.{kind}'
