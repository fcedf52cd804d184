"""From mmpretrain's names to torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torchvision
from mmpretrain.models import MobileNetV2
from torch import nn

from .families import (
    RESNETS,
    convnext_norms_left_out,
    convnext_shape,
    mobilenet_width,
    resnet_shape,
    without_counterpart,
)
from .loading import Converted, Counterpart, load_converted
from .source import PretrainedBackbone

_LIBRARY = 'torchvision'
_RESNEXTS = ((50, 32, 4), (101, 32, 8), (101, 64, 4))
_CONVNEXTS = ('tiny', 'small', 'base', 'large')


def to_torchvision(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a torchvision classifier whose head is left as it is made.

    Raises:
        ValueError: torchvision does not have the network, or the weights do not fit it.
    """
    match backbone.config['type']:
        case name if name in RESNETS:
            found = _resnet(backbone)
        case 'MobileNetV2':
            found = _mobilenet(backbone)
        case 'ConvNeXt':
            found = _convnext(backbone)
        case _:
            raise without_counterpart(_LIBRARY, backbone.config, {})
    make: Callable[..., nn.Module] = getattr(torchvision.models, found.name)
    network = make(weights=None, **found.arguments)
    weights, report = load_converted(
        network,
        found.renamed(backbone.weights),
        what=f"torchvision's {found.name}",
        classifier=found.classifier,
        left_out=found.left_out,
    )
    shown = ', '.join(f'{key}={value!r}' for key, value in found.arguments.items())
    return Converted(
        network=network,
        weights=weights,
        made_by=f'torchvision.models.{found.name}({shown})',
        load='network.load_state_dict({weights}, strict=False)',
        report=report,
    )


def _resnet(backbone: PretrainedBackbone) -> Counterpart:
    shape = resnet_shape(backbone.config, _LIBRARY)
    changed: dict[str, Any] = {'deep_stem': shape.deep_stem, 'avg_down': shape.avg_down}
    changed = {name: value for name, value in changed.items() if value}
    if shape.groups is not None and (shape.depth, shape.groups, shape.width) not in _RESNEXTS:
        changed |= {'depth': shape.depth, 'groups': shape.groups, 'width_per_group': shape.width}
    if changed:
        raise without_counterpart(_LIBRARY, backbone.config, changed)
    name = f'resnet{shape.depth}'
    if shape.groups is not None:
        name = f'resnext{shape.depth}_{shape.groups}x{shape.width}d'
    return Counterpart(name=name, rename=str, classifier=('fc.',))


def _mobilenet(backbone: PretrainedBackbone) -> Counterpart:
    width = mobilenet_width(backbone.config, _LIBRARY)
    return Counterpart(
        name='mobilenet_v2',
        rename=_rename_mobilenet,
        arguments={} if width == 1 else {'width_mult': width},
        classifier=('classifier.',),
    )


def _rename_mobilenet(name: str) -> str:
    # conv1.bn.weight, layer2.0.conv.1.conv.weight: a part is a convolution or its norm
    *place, part, kind = name.split('.')
    second = part == 'bn'
    if place == ['conv1']:
        return f'features.0.{int(second)}.{kind}'
    depths = [blocks for _, _, blocks, _ in MobileNetV2.arch_settings]
    if place == ['conv2']:
        return f'features.{sum(depths) + 1}.{int(second)}.{kind}'
    stage, block, _, step = place
    before = [0, *accumulate(depths)][int(stage.removeprefix('layer')) - 1]
    prefix = f'features.{1 + before + int(block)}.conv'
    # the first stage does not widen, so that its blocks are one step shorter
    last = 1 if stage == 'layer1' else 2
    if int(step) == last:
        return f'{prefix}.{last + second}.{kind}'
    return f'{prefix}.{step}.{int(second)}.{kind}'


def _convnext(backbone: PretrainedBackbone) -> Counterpart:
    shape = convnext_shape(backbone.config, _LIBRARY)
    if shape.second_version or shape.size not in _CONVNEXTS:
        raise without_counterpart(
            _LIBRARY, backbone.config, {'arch': shape.size, 'use_grn': shape.second_version}
        )
    last = f'norm{shape.last}.'
    left_out = convnext_norms_left_out(backbone.weights, shape, 'torchvision')
    if not shape.norm_after_pooling:
        reason = 'torchvision normalises after pooling, this network before'
        left_out |= {name: reason for name in backbone.weights if name.startswith(last)}
    return Counterpart(
        name=f'convnext_{shape.size}',
        rename=lambda name: _rename_convnext(name, last),
        classifier=('classifier.',),
        left_out=left_out,
    )


def _rename_convnext(name: str, last_norm: str) -> str:
    if name.startswith(last_norm):
        return name.replace(last_norm, 'classifier.0.')
    kind, stage, *rest = name.split('.')
    if kind == 'downsample_layers':
        return '.'.join(['features', str(2 * int(stage)), *rest])
    block, part, *rest = rest
    steps = {
        'depthwise_conv': 'block.0',
        'norm': 'block.2',
        'pointwise_conv1': 'block.3',
        'pointwise_conv2': 'block.5',
        'gamma': 'layer_scale',
    }
    return '.'.join(['features', str(2 * int(stage) + 1), block, steps[part], *rest])
