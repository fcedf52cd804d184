"""The networks of other libraries that equal a backbone of mmpretrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from mmengine.utils import to_2tuple
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from hgkd_mm.weights.fit import Fit, fitting, load_whole
from hgkd_mm.weights.reading import BACKBONE

from .matching import long_axes, match_weights
from .network import build_backbone
from .source import PretrainedBackbone

# odd, so that what pads or rounds otherwise gives other features
_SIZE = (41, 57)
# the ViT of timm whose initialization a width gets
_TIMM_VITS = {192: 'tiny', 384: 'small', 768: 'base', 1024: 'large'}


def to_mmpretrain(backbone: PretrainedBackbone) -> Converted:
    """The backbone as mmpretrain's classifiers hold it: the names stay, under 'backbone.'.

    ``load_from``, ``mmpretrain.get_model(..., pretrained=FILE)`` and ``init_cfg`` with
    ``prefix='backbone.'`` take such a file.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    network = nn.ModuleDict({BACKBONE.rstrip('.'): build_backbone(backbone.config)})
    weights, fit = fill(
        network,
        {BACKBONE + name: value for name, value in backbone.weights.items()},
        what=f"mmpretrain's {backbone.config['type']}",
    )
    return Converted(
        network=network[BACKBONE.rstrip('.')],
        weights=weights,
        fit=fit,
        made_by=f'dict({_shown(backbone.config)})',
    )


def to_timm(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a timm network without classifier.

    Raises:
        ValueError: timm does not have the network, or the weights do not fit it.
    """
    import timm  # takes seconds, and most targets do without

    name, arguments = _timm_name(backbone.config)
    create = ', '.join(filter(None, (repr(name), 'num_classes=0', _shown(arguments))))
    return _matched(
        backbone,
        lambda: timm.create_model(name, num_classes=0, **arguments),
        library='timm',
        made_by=f'timm.create_model({create})',
    )


def to_torchvision(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a torchvision classifier whose head is left as it is made.

    Raises:
        ValueError: torchvision does not have the network, or the weights do not fit it.
    """
    name, arguments = _torchvision_name(backbone.config)
    return _matched(
        backbone,
        lambda: torchvision.models.get_model(name, weights=None, **arguments),
        library='torchvision',
        made_by=f'torchvision.models.{name}({_shown(arguments)})',
    )


def _matched(
    backbone: PretrainedBackbone,
    make: Callable[[], nn.Module],
    *,
    library: str,
    made_by: str,
) -> Converted:
    """The backbone in the library's network, which has to compute the same last map."""
    config = backbone.config
    try:
        network = make()
        network.train(False)
        is_vit = config['type'] == 'VisionTransformer'
        size = to_2tuple(config.get('img_size', 224)) if is_vit else _SIZE
        names = match_weights(_last_features(config, library), network, size)
    except Exception as error:  # whatever the library raises at settings that it does not have
        shown = _shown({key: value for key, value in config.items() if key != 'type'})
        raise ValueError(
            f'{library} has no counterpart of {config["type"]}({shown}): {error}. --to mmpretrain '
            'takes every backbone of mmpretrain.'
        ) from error
    if library == 'torchvision' and not config.get('gap_before_final_norm', True):
        names = {own: name for own, name in names.items() if not own.startswith('norm3.')}
    absent = tuple(network.state_dict().keys() - names.values()) if library != 'timm' else ()
    weights, fit = fill(
        network.float(),
        {names[name]: value for name, value in backbone.weights.items() if name in names},
        what=f"{library}'s network",
        absent=absent,
    )
    return Converted(
        network=network,
        weights=weights,
        fit=fit,
        made_by=made_by,
        left_out=tuple(name for name in backbone.weights if name not in names),
    )


def _last_features(config: Mapping[str, Any], library: str) -> nn.Module:
    """mmpretrain's network, of whose features the libraries have the last ones."""
    settings = {key: value for key, value in config.items() if key != 'out_indices'}
    if settings.get('out_type') in ('raw', 'featmap'):
        settings['out_type'] = 'cls_token'
    if library == 'torchvision' and 'gap_before_final_norm' in settings:
        # torchvision's norm follows the pooling; that of a map is left out
        settings['gap_before_final_norm'] = True
    return build_backbone(settings)


def _timm_name(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """timm's name of a network, and its arguments; one of no such family is refused by timm."""
    match config['type']:
        case 'ResNet' | 'ResNetV1c' | 'ResNetV1d' | 'ResNeXt':
            return _resnet_name(config), {}
        case 'MobileNetV2':
            return f'mobilenetv2_{round(100 * config.get("widen_factor", 1)):03d}', {}
        case 'ConvNeXt':
            after_pooling = config.get('gap_before_final_norm', True)
            version = 'v2' if config.get('use_grn') else ''
            arguments = {} if after_pooling else {'head_norm_first': True}
            return f'convnext{version}_{config.get("arch", "tiny")}', arguments
        case 'VisionTransformer':
            return _timm_vit(config)
        case other:
            return other, {}


def _timm_vit(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    arch = config.get('arch', 'base')
    if isinstance(arch, str):
        arch = VisionTransformer.arch_zoo[arch.lower()]
    width = arch['embed_dims']
    return f'vit_{_TIMM_VITS.get(width, "base")}_patch16_224', {
        'img_size': config.get('img_size', 224),
        'patch_size': config.get('patch_size', 16),
        'embed_dim': width,
        'depth': arch['num_layers'],
        'num_heads': arch['num_heads'],
        'mlp_ratio': arch['feedforward_channels'] / width,
    }


def _torchvision_name(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """As `_timm_name`."""
    match config['type']:
        case 'ResNet' | 'ResNetV1c' | 'ResNetV1d' | 'ResNeXt':
            return _resnet_name(config), {}
        case 'MobileNetV2':
            width = config.get('widen_factor', 1)
            return 'mobilenet_v2', {} if width == 1 else {'width_mult': float(width)}
        case 'ConvNeXt':
            return f'convnext_{config.get("arch", "tiny")}', {}
        case other:
            return other, {}


def _resnet_name(config: Mapping[str, Any]) -> str:
    kind, depth = config['type'], config['depth']
    if kind == 'ResNeXt':
        return f'resnext{depth}_{config.get("groups", 32)}x{config.get("width_per_group", 4)}d'
    return f'resnet{depth}{kind.removeprefix("ResNet").removeprefix("V1")}'


def _shown(settings: Mapping[str, Any]) -> str:
    return ', '.join(f'{name}={value!r}' for name, value in settings.items())


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A backbone in the shape of its target.

    Attributes:
        network: the target's network with the weights, in eval mode.
        weights: what goes into the file, in the target's naming.
        fit: of the network. What is missing belongs to its classifier, which pre-training has
            none of, and nothing is unused: all else is refused.
        made_by: how the network is made, as Python.
        left_out: weights of the source that the target has no place for.
    """

    network: nn.Module
    weights: Mapping[str, Tensor]
    fit: Fit
    made_by: str
    left_out: tuple[str, ...] = ()


def fill(
    network: nn.Module, weights: Mapping[str, Tensor], *, what: str, absent: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], Fit]:
    """Loads all weights into the target's network, which is in eval mode afterwards.

    A weight may differ from the network's own in axes of length 1. Float weights become the
    network's precision. Counters of batch norms go where the source has them.

    Args:
        network: the target's network.
        weights: name to tensor, in the target's naming.
        what: the network, for messages.
        absent: names that may be missing.

    Returns:
        The weights as they were loaded, and how they fit.

    Raises:
        ValueError: a weight is missing, unknown or of the wrong shape; names and counts them.
    """
    own = network.state_dict()
    shaped = {
        name: value.reshape(own[name].shape)
        if name in own and long_axes(value) == long_axes(own[name])
        else value
        for name, value in weights.items()
    }
    wrong = (
        f'The weights do not fit {what} of the config (in the checkpoint, or given with --config), '
        'and nothing was written'
    )
    fit = load_whole(network, shaped, what=wrong, absent=absent)
    network.train(False)
    # a view would take all that it is a view of into the file
    fitted = {
        name: value.to(own[name]).clone(memory_format=torch.contiguous_format)
        for name, value in fitting(own, shaped).items()
    }
    return fitted, fit
