"""What timm and torchvision ask of a backbone before they have a counterpart of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmpretrain.models import ConvNeXt

from .network import unusual_settings

RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
_BASIC_BLOCK_DEPTHS = (18, 34)


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """Which ResNet it is; ``groups`` and ``width`` are None for one without groups."""

    depth: int
    deep_stem: bool
    avg_down: bool
    groups: int | None
    width: int | None


@dataclass(frozen=True, kw_only=True)
class ConvNeXtShape:
    """Which ConvNeXt it is.

    Attributes:
        size: 'tiny', 'base', ...
        second_version: with global response norm and without layer scale.
        last: index of the last stage.
        norm_after_pooling: whether the norm of the last map follows the pooling.
    """

    size: str
    second_version: bool
    last: int
    norm_after_pooling: bool


def resnet_shape(config: Mapping[str, Any], library: str) -> ResNetShape:
    """Reads the config of a ResNet, ResNetV1c, ResNetV1d or ResNeXt.

    Args:
        config: described config.
        library: the target, for messages.

    Raises:
        ValueError: it has settings other than those of `ResNetShape`.
    """
    known = {'depth', 'deep_stem', 'avg_down', 'groups', 'width_per_group'}
    depth = config['depth']
    if depth in _BASIC_BLOCK_DEPTHS:
        known.add('style')  # which of two strides it moves exists in bottlenecks only
    refuse_unusual(config, library, known)
    grouped = config['type'] == 'ResNeXt'
    return ResNetShape(
        depth=depth,
        deep_stem=config['type'] in ('ResNetV1c', 'ResNetV1d') or config.get('deep_stem', False),
        avg_down=config['type'] == 'ResNetV1d' or config.get('avg_down', False),
        groups=config.get('groups', 32) if grouped else None,
        width=config.get('width_per_group', 4) if grouped else None,
    )


def keep_place_for_pooling(name: str, stages: Iterable[int]) -> str:
    """Renames the shortcut of a stage that does not shrink in networks with ``avg_down``.

    mmpretrain pools in no such stage and counts convolution and norm from 0; timm and mmdet have
    a pooling of stride 1 there, or a place for it.

    Args:
        name: of a weight.
        stages: those that don't shrink, counted from 1.
    """
    for stage in stages:
        prefix = f'layer{stage}.0.downsample.'
        if name.startswith(prefix):
            index, kind = name.removeprefix(prefix).split('.')
            return f'{prefix}{int(index) + 1}.{kind}'
    return name


def mobilenet_width(config: Mapping[str, Any], library: str) -> float:
    """The width factor of a MobileNetV2.

    Raises:
        ValueError: it has other settings.
    """
    refuse_unusual(config, library, {'widen_factor'})
    return float(config.get('widen_factor', 1.0))


def convnext_shape(config: Mapping[str, Any], library: str) -> ConvNeXtShape:
    """Reads the config of a ConvNeXt.

    Linear layers and 1x1 convolutions (``linear_pw_conv``) are the same function.

    Raises:
        ValueError: it has settings other than those of `ConvNeXtShape`, or a size of its own.
    """
    known = {
        'arch',
        'gap_before_final_norm',
        'layer_scale_init_value',
        'linear_pw_conv',
        'use_grn',
    }
    refuse_unusual(config, library, known)
    arch = config.get('arch', 'tiny')
    wanted = arch if isinstance(arch, Mapping) else ConvNeXt.arch_settings.get(arch, {})
    sizes = [
        size
        for size, stages in ConvNeXt.arch_settings.items()
        if all(list(stages[key]) == list(wanted.get(key, ())) for key in stages)
    ]
    with_grn = bool(config.get('use_grn', False))
    with_scale = config.get('layer_scale_init_value', 1e-6) > 0
    if not sizes or with_grn == with_scale:
        names = ('arch', 'use_grn', 'layer_scale_init_value')
        shown = {name: config[name] for name in names if name in config}
        raise without_counterpart(library, config, shown)
    return ConvNeXtShape(
        size=sizes[0],
        second_version=with_grn,
        last=len(wanted['depths']) - 1,
        norm_after_pooling=bool(config.get('gap_before_final_norm', True)),
    )


def convnext_norms_left_out(
    names: Iterable[str], shape: ConvNeXtShape, library: str
) -> dict[str, str]:
    """The norms of all maps but the last, which mmpretrain adds and others don't have.

    Returns:
        Name of the weight to reason.
    """
    reason = f'norms of earlier maps; {library} normalises the last only'
    earlier = tuple(f'norm{index}.' for index in range(shape.last))
    return {name: reason for name in names if name.startswith(earlier)}


def refuse_unusual(config: Mapping[str, Any], library: str, known: set[str]) -> None:
    """Refuses a network whose maps the target would compute in another way.

    Raises:
        ValueError: a setting other than ``known`` differs from mmpretrain's default.
    """
    unusual = unusual_settings(config, known=frozenset(known))
    if unusual:
        raise without_counterpart(library, config, unusual)


def without_counterpart(library: str, config: Mapping[str, Any], settings: Mapping) -> ValueError:
    """The sentence for a network that the target library does not have.

    Args:
        library: the target.
        config: described config of the backbone.
        settings: what of it the library has no counterpart for; all of it if empty.
    """
    shown = ', '.join(f'{name}={value!r}' for name, value in settings.items())
    network = f'{config["type"]} with {shown}' if shown else str(config['type'])
    return ValueError(
        f'{library} has no counterpart of {network}: --to mmpretrain and --to mmdet take '
        'every backbone of mmpretrain.'
    )
