"""For models of mmpretrain, detectors of mmdet and segmentors of mmseg."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from hgkd_mm.weights.reading import BACKBONE

from .counterparts import mobilenet_stages, pools, rename, resnet_rules
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
# settings of mmdet's own networks
_NATIVE = {
    'ResNet': _RESNET_SETTINGS,
    'ResNetV1d': _RESNET_SETTINGS,
    'ResNeXt': _RESNET_SETTINGS | {'groups', 'width_per_group'},
    'MobileNetV2': {'widen_factor', 'conv_cfg', 'norm_cfg', 'act_cfg'},
}
_MOBILENET_STEPS = ('expand_conv', 'depthwise_conv', 'linear_conv')


def to_mmpretrain(backbone: PretrainedBackbone) -> Converted:
    """The backbone as mmpretrain's classifiers hold it: the names stay, under 'backbone.'.

    ``load_from``, ``mmpretrain.get_model(..., pretrained=FILE)`` and ``init_cfg`` with
    ``prefix='backbone.'`` take such a file.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    config = backbone.config
    network = nn.ModuleDict({BACKBONE.rstrip('.'): build_backbone(config)})
    weights, report = load_converted(
        network,
        {BACKBONE + name: value for name, value in backbone.weights.items()},
        what=f"mmpretrain's {config['type']}",
    )
    shown = ', '.join(f'{key}={value!r}' for key, value in config.items())
    return Converted(
        network=network[BACKBONE.rstrip('.')],
        weights=weights,
        made_by=f'dict({shown})',
        load="init_cfg=dict(type='Pretrained', checkpoint={file}, prefix='backbone.')",
        report=report,
    )


def to_mmdet(backbone: PretrainedBackbone) -> Converted:
    """The backbone as mmdet has it, without a prefix.

    mmdet's own network where it has the same one (ResNet, V1d, ResNeXt, MobileNetV2), otherwise
    mmpretrain's, which detectors and segmentors take as ``type='mmpretrain.ConvNeXt'``.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    found = _native(backbone.config)
    if found is None:
        found, network = _borrowed(backbone.config)
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
    settings = _NATIVE.get(kind)
    if settings is None or unusual_settings(config, known=settings):
        return None
    if kind == 'MobileNetV2':
        rules = {
            rf'layer{stage}\.(\d+)\.conv\.{index}': rf'layer{stage}.\1.{step}'
            for stage, _, steps in mobilenet_stages(_MOBILENET_STEPS)
            for index, step in enumerate(steps)
        }
    else:
        strides = config.get('strides', (1, 2, 2, 2)) if pools(config) else ()
        same_size = [stage for stage, stride in enumerate(strides, start=1) if stride == 1]
        rules = resnet_rules('stem', 'stem.7', same_size)
    arguments = {key: config[key] for key in config if key in settings | {'out_indices'}}
    if kind == 'ResNeXt':
        arguments['groups'] = arguments.get('groups', 32)
        arguments['base_width'] = arguments.pop('width_per_group', 4)
    return Counterpart(name=kind, rename=partial(rename, rules), arguments=arguments)


def _build(found: Counterpart) -> nn.Module:
    # mmdet takes seconds to import, and other targets do without
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    return MODELS.build({'type': found.name, **found.arguments, '_scope_': 'mmdet'})


def _borrowed(config: Mapping[str, Any]) -> tuple[Counterpart, nn.Module]:
    """mmpretrain's network as mmdet names it."""
    network = build_backbone(config)
    arguments = {key: value for key, value in config.items() if key != 'type'}
    if 'featmap' in getattr(network, 'OUT_TYPES', ()):
        # necks want maps; pre-training and classification take tokens
        arguments['out_type'] = 'featmap'
    found = Counterpart(name=f'mmpretrain.{config["type"]}', rename=str, arguments=arguments)
    return found, network
