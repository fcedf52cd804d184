"""From mmpretrain's names to timm's."""

from __future__ import annotations

import re

import timm
from mmpretrain.models import VisionTransformer

from .families import (
    RESNETS,
    convnext_norms_left_out,
    convnext_shape,
    keep_place_for_pooling,
    mobilenet_width,
    refuse_unusual,
    resnet_shape,
    without_counterpart,
)
from .loading import Converted, Counterpart, load_converted
from .source import PretrainedBackbone

_LIBRARY = 'timm'
# whether it has a stem of three convolutions, and pools where it shrinks the shortcut
_STEMS = {(False, False): '', (True, False): 'c', (True, True): 'd'}
_CONVNEXTS = {
    False: ('tiny', 'small', 'base', 'large', 'xlarge'),
    True: ('atto', 'femto', 'pico', 'nano', 'tiny', 'base', 'large', 'huge'),
}
_VITS = {192: 'tiny', 384: 'small', 768: 'base', 1024: 'large'}
_VIT_PARTS = (
    ('patch_embed.projection.', 'patch_embed.proj.'),
    ('layers.', 'blocks.'),
    ('.ln1.', '.norm1.'),
    ('.ln2.', '.norm2.'),
    ('.ffn.blocks.0.0.', '.mlp.fc1.'),
    ('.ffn.blocks.1.', '.mlp.fc2.'),
)


def to_timm(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a timm network without classifier.

    Raises:
        ValueError: timm does not have the network, or the weights do not fit it.
    """
    match backbone.config['type']:
        case name if name in RESNETS:
            found = _resnet(backbone)
        case 'MobileNetV2':
            found = _mobilenet(backbone)
        case 'ConvNeXt':
            found = _convnext(backbone)
        case 'VisionTransformer':
            found = _vit(backbone)
        case _:
            raise without_counterpart(_LIBRARY, backbone.config, {})
    network = timm.create_model(found.name, num_classes=0, **found.arguments)
    weights, report = load_converted(
        network,
        found.renamed(backbone.weights),
        what=f"timm's {found.name}",
        classifier=found.classifier,
        left_out=found.left_out,
    )
    shown = ''.join(f', {key}={value!r}' for key, value in found.arguments.items())
    create = f'timm.create_model({found.name!r}, num_classes=0{shown}'
    return Converted(
        network=network,
        weights=weights,
        made_by=f'{create})',
        load=f'network = {create}, checkpoint_path={{file}})',
        report=report,
    )


def _resnet(backbone: PretrainedBackbone) -> Counterpart:
    shape = resnet_shape(backbone.config, _LIBRARY)
    stem = _STEMS.get((shape.deep_stem, shape.avg_down), 'without')
    if shape.groups is None:
        name = f'resnet{shape.depth}{stem}'
    else:
        name = f'resnext{shape.depth}{stem}_{shape.groups}x{shape.width}d'
    if not timm.is_model(name):
        names = ('depth', 'deep_stem', 'avg_down', 'groups', 'width_per_group')
        shown = {key: backbone.config[key] for key in names if key in backbone.config}
        raise without_counterpart(_LIBRARY, backbone.config, shown)
    same_size = (1,) if shape.avg_down else ()
    return Counterpart(name=name, rename=lambda weight: _rename_resnet(weight, same_size))


def _rename_resnet(name: str, same_size: tuple[int, ...]) -> str:
    name = keep_place_for_pooling(name, same_size)
    stem = re.fullmatch(r'stem\.(\d)\.(conv|bn)\.(\w+)', name)
    if stem is None:
        return name
    index, part, kind = stem.groups()
    if part == 'conv':
        return f'conv1.{3 * int(index)}.{kind}'
    return f'bn1.{kind}' if index == '2' else f'conv1.{3 * int(index) + 1}.{kind}'


def _mobilenet(backbone: PretrainedBackbone) -> Counterpart:
    width = mobilenet_width(backbone.config, _LIBRARY)
    name = f'mobilenetv2_{round(100 * width):03d}'
    if not timm.is_model(name):
        raise without_counterpart(_LIBRARY, backbone.config, {'widen_factor': width})
    return Counterpart(name=name, rename=_rename_mobilenet)


def _rename_mobilenet(name: str) -> str:
    # conv1.bn.weight, layer2.0.conv.1.conv.weight: a part is a convolution or its norm
    *place, part, kind = name.split('.')
    if len(place) == 1:
        convolution, norm = {'conv1': ('conv_stem', 'bn1'), 'conv2': ('conv_head', 'bn2')}[place[0]]
        return f'{norm if part == "bn" else convolution}.{kind}'
    stage, block, _, step = place
    prefix = f'blocks.{int(stage.removeprefix("layer")) - 1}.{block}'
    if part == 'bn':
        return f'{prefix}.bn{int(step) + 1}.{kind}'
    steps = ('conv_dw', 'conv_pw') if stage == 'layer1' else ('conv_pw', 'conv_dw', 'conv_pwl')
    return f'{prefix}.{steps[int(step)]}.{kind}'


def _convnext(backbone: PretrainedBackbone) -> Counterpart:
    shape = convnext_shape(backbone.config, _LIBRARY)
    if shape.size not in _CONVNEXTS[shape.second_version]:
        raise without_counterpart(
            _LIBRARY, backbone.config, {'arch': shape.size, 'use_grn': shape.second_version}
        )
    norm = 'head.norm.' if shape.norm_after_pooling else 'norm_pre.'
    last = f'norm{shape.last}.'
    return Counterpart(
        name=f'convnext{"v2" if shape.second_version else ""}_{shape.size}',
        rename=lambda name: _rename_convnext(name, last, norm),
        arguments={} if shape.norm_after_pooling else {'head_norm_first': True},
        classifier=(norm,),
        left_out=convnext_norms_left_out(backbone.weights, shape, 'timm'),
    )


def _rename_convnext(name: str, last_norm: str, norm: str) -> str:
    if name.startswith(last_norm):
        return name.replace(last_norm, norm)
    kind, stage, *rest = name.split('.')
    if kind == 'downsample_layers':
        place = ['stem'] if stage == '0' else ['stages', stage, 'downsample']
        return '.'.join([*place, *rest])
    block, part, *rest = rest
    parts = {
        'depthwise_conv': 'conv_dw',
        'pointwise_conv1': 'mlp.fc1',
        'pointwise_conv2': 'mlp.fc2',
    }
    if part == 'grn':
        part, rest = 'mlp.grn', [{'gamma': 'weight', 'beta': 'bias'}[rest[0]]]
    return '.'.join(['stages', stage, 'blocks', block, parts.get(part, part), *rest])


def _vit(backbone: PretrainedBackbone) -> Counterpart:
    config = backbone.config
    # How many of the tokens mmpretrain hands on changes no weight.
    refuse_unusual(config, _LIBRARY, {'arch', 'img_size', 'patch_size', 'out_type'})
    arch, patch = config.get('arch', 'base'), config.get('patch_size', 16)
    if isinstance(arch, str):
        arch = VisionTransformer.arch_zoo[arch.lower()]
    width = arch['embed_dims']
    name = f'vit_{_VITS.get(width, "base")}_patch16_224'
    return Counterpart(
        name=name,
        rename=_rename_vit,
        arguments={
            'img_size': config.get('img_size', 224),
            'patch_size': patch,
            'embed_dim': width,
            'depth': arch['num_layers'],
            'num_heads': arch['num_heads'],
            'mlp_ratio': arch['feedforward_channels'] / width,
        },
    )


def _rename_vit(name: str) -> str:
    for ours, theirs in _VIT_PARTS:
        name = name.replace(ours, theirs)
    return f'norm.{name.removeprefix("ln1.")}' if name.startswith('ln1.') else name
