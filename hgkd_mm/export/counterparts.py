"""timm's and torchvision's networks that equal a backbone of mmpretrain, and their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import torchvision
from mmpretrain.models import ConvNeXt, MobileNetV2, VisionTransformer

from .loading import Converted, Counterpart, load_converted
from .network import unusual_settings
from .source import PretrainedBackbone

# Pattern of the beginning of mmpretrain's name of a weight, to the library's.
Rules = Mapping[str, str]
# None: the library has no such network.
Family = Callable[[PretrainedBackbone], Counterpart | None]

_RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
_BASIC_BLOCK_DEPTHS = (18, 34)
# settings that the functions of the families look at
_KNOWN = {
    **dict.fromkeys(_RESNETS, {'depth', 'deep_stem', 'avg_down', 'groups', 'width_per_group'}),
    'MobileNetV2': {'widen_factor'},
    # linear layers and 1x1 convolutions (linear_pw_conv) are the same function
    'ConvNeXt': {
        'arch',
        'gap_before_final_norm',
        'layer_scale_init_value',
        'linear_pw_conv',
        'use_grn',
    },
    # how many of the tokens mmpretrain returns (out_type) changes no weight
    'VisionTransformer': {'arch', 'img_size', 'patch_size', 'out_type'},
}

_BLOCK = r'stages\.(\d)\.(\d+)\.'
_LAYER = r'layers\.(\d+)\.'
_TIMM_CONVNEXT = {
    r'downsample_layers\.0': 'stem',
    r'downsample_layers\.([1-3])': r'stages.\1.downsample',
    rf'{_BLOCK}depthwise_conv': r'stages.\1.blocks.\2.conv_dw',
    rf'{_BLOCK}pointwise_conv([12])': r'stages.\1.blocks.\2.mlp.fc\3',
    rf'{_BLOCK}grn\.gamma': r'stages.\1.blocks.\2.mlp.grn.weight',
    rf'{_BLOCK}grn\.beta': r'stages.\1.blocks.\2.mlp.grn.bias',
    rf'{_BLOCK}(norm|gamma)': r'stages.\1.blocks.\2.\3',
}
_TIMM_VIT = {
    r'patch_embed\.projection': 'patch_embed.proj',
    rf'{_LAYER}attn': r'blocks.\1.attn',
    rf'{_LAYER}ln([12])': r'blocks.\1.norm\2',
    rf'{_LAYER}ffn\.layers\.0\.0': r'blocks.\1.mlp.fc1',
    rf'{_LAYER}ffn\.layers\.1': r'blocks.\1.mlp.fc2',
    'ln1': 'norm',
}
_VISION_CONVNEXT = {
    rf'downsample_layers\.{stage}': f'features.{2 * stage}' for stage in range(4)
} | {
    rf'stages\.{stage}\.(\d+)\.{part}': rf'features.{2 * stage + 1}.\1.{place}'
    for stage in range(4)
    for part, place in {
        'depthwise_conv': 'block.0',
        'norm': 'block.2',
        'pointwise_conv1': 'block.3',
        'pointwise_conv2': 'block.5',
        'gamma': 'layer_scale',
    }.items()
}
# sizes by whether they are of V2, with global response norm and without layer scale
_TIMM_SIZES = {
    False: ('tiny', 'small', 'base', 'large', 'xlarge'),
    True: ('atto', 'femto', 'pico', 'nano', 'tiny', 'base', 'large', 'huge'),
}
_VISION_SIZES = {False: ('tiny', 'small', 'base', 'large'), True: ()}
# the ViT of timm whose initialization a width gets
_TIMM_VITS = {192: 'tiny', 384: 'small', 768: 'base', 1024: 'large'}


def rename(rules: Rules, name: str) -> str:
    """The library's name of a weight; mmpretrain's own if no rule is for it."""
    for pattern, new in rules.items():
        found = re.match(rf'{pattern}(?=\.|$)', name)
        if found:
            return found.expand(new) + name[found.end() :]
    return name


def resnet_rules(stem: str, last_norm: str, same_size: Iterable[int]) -> Rules:
    """Rules for a stem of three convolutions and for shortcuts that pool.

    mmpretrain pools in no stage that keeps the size and counts its convolution and norm from 0;
    timm and mmdet have a pooling of stride 1 there, or a place for it.

    Args:
        stem: the library's list of convolution, norm and ReLU, three times.
        last_norm: the library's name for the norm at its end.
        same_size: stages that pool and keep the size, counted from 1.
    """
    parts = [(index, part) for index in range(3) for part in ('conv', 'bn')]
    rules = {rf'stem\.{i}\.{part}': f'{stem}.{3 * i + (part == "bn")}' for i, part in parts}
    rules[r'stem\.2\.bn'] = last_norm
    for stage in same_size:
        shortcut = f'layer{stage}.0.downsample'
        rules |= {rf'{re.escape(shortcut)}\.{i}': f'{shortcut}.{i + 1}' for i in range(2)}
    return rules


def mobilenet_stages(steps: tuple[str, str, str]) -> Iterator[tuple[int, range, list[str]]]:
    """Number, blocks and steps of a block of each stage of MobileNetV2.

    Stages are counted from 1, blocks through the network from 1.

    Args:
        steps: the library's names; the first, which widens, is missing in the first stage.
    """
    first = 1
    for stage, (_, _, depth, _) in enumerate(MobileNetV2.arch_settings, start=1):
        yield stage, range(first, first + depth), list(steps[1:] if stage == 1 else steps)
        first += depth


def to_timm(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a timm network without classifier.

    Raises:
        ValueError: timm does not have the network, or the weights do not fit it.
    """
    import timm  # takes seconds, and most targets do without

    families: dict[str, Family] = {
        **dict.fromkeys(_RESNETS, _timm_resnet),
        'MobileNetV2': _timm_mobilenet,
        'ConvNeXt': _timm_convnext,
        'VisionTransformer': _timm_vit,
    }
    found = _counterpart(backbone, 'timm', families, timm.list_models())
    shown = ''.join(f', {key}={value!r}' for key, value in found.arguments.items())
    create = f'timm.create_model({found.name!r}, num_classes=0{shown}'
    network = timm.create_model(found.name, num_classes=0, **found.arguments)
    weights, report = load_converted(
        network,
        found.renamed(backbone.weights),
        what=f"timm's {found.name}",
        classifier=found.classifier,
        left_out=found.left_out,
    )
    return Converted(
        network=network,
        weights=weights,
        made_by=f'{create})',
        load=f'network = {create}, checkpoint_path={{file}})',
        report=report,
    )


def to_torchvision(backbone: PretrainedBackbone) -> Converted:
    """The backbone as a torchvision classifier whose head is left as it is made.

    Raises:
        ValueError: torchvision does not have the network, or the weights do not fit it.
    """
    families: dict[str, Family] = {
        **dict.fromkeys(_RESNETS, _vision_resnet),
        'MobileNetV2': _vision_mobilenet,
        'ConvNeXt': _vision_convnext,
    }
    found = _counterpart(backbone, 'torchvision', families, torchvision.models.list_models())
    shown = ', '.join(f'{key}={value!r}' for key, value in found.arguments.items())
    network = torchvision.models.get_model(found.name, weights=None, **found.arguments)
    weights, report = load_converted(
        network,
        found.renamed(backbone.weights),
        what=f"torchvision's {found.name}",
        classifier=found.classifier,
        left_out=found.left_out,
    )
    return Converted(
        network=network,
        weights=weights,
        made_by=f'torchvision.models.{found.name}({shown})',
        load='network.load_state_dict({weights}, strict=False)',
        report=report,
    )


def _counterpart(
    backbone: PretrainedBackbone,
    library: str,
    families: Mapping[str, Family],
    networks: Collection[str],
) -> Counterpart:
    """The library's network, which computes the same maps.

    Args:
        backbone: of mmpretrain.
        library: for messages.
        families: by mmpretrain's type.
        networks: names of all that the library has.

    Raises:
        ValueError: the library has no such family, size or setting.
    """
    config = backbone.config
    kind = config['type']
    find = families.get(kind)
    if find is None:
        raise _without_counterpart(library, kind, {})
    known = _KNOWN[kind]
    if config.get('depth') in _BASIC_BLOCK_DEPTHS:
        known = known | {'style'}  # which of two strides it moves exists in bottlenecks only
    unusual = unusual_settings(config, known=known)
    if unusual:
        raise _without_counterpart(library, kind, unusual)
    found = find(backbone)
    if found is None or found.name not in networks:
        shown = {name: value for name, value in config.items() if name in known}
        raise _without_counterpart(library, kind, shown)
    return found


def _without_counterpart(library: str, kind: str, settings: Mapping[str, Any]) -> ValueError:
    shown = ', '.join(f'{name}={value!r}' for name, value in settings.items())
    return ValueError(
        f'{library} has no counterpart of {kind}{" with " * bool(shown)}{shown}: --to mmpretrain '
        'and --to mmdet take every backbone of mmpretrain.'
    )


def _resnet_name(config: Mapping[str, Any]) -> str:
    """timm's name of a ResNet, and torchvision's where that has the network."""
    kind, depth = config['type'], config['depth']
    deep_stem = kind in ('ResNetV1c', 'ResNetV1d') or config.get('deep_stem', False)
    # '?': no library has this
    letter = ('d' if pools(config) else 'c') if deep_stem else '?' if pools(config) else ''
    if kind != 'ResNeXt':
        return f'resnet{depth}{letter}'
    groups, width = config.get('groups', 32), config.get('width_per_group', 4)
    return f'resnext{depth}{letter}_{groups}x{width}d'


def pools(config: Mapping[str, Any]) -> bool:
    """Whether the shortcuts of a ResNet shrink by pooling."""
    return config['type'] == 'ResNetV1d' or config.get('avg_down', False)


def _timm_resnet(backbone: PretrainedBackbone) -> Counterpart:
    rules = resnet_rules('conv1', 'bn1', same_size=(1,) if pools(backbone.config) else ())
    return Counterpart(name=_resnet_name(backbone.config), rename=partial(rename, rules))


def _vision_resnet(backbone: PretrainedBackbone) -> Counterpart:
    return Counterpart(name=_resnet_name(backbone.config), rename=str, classifier=('fc.',))


def _timm_mobilenet(backbone: PretrainedBackbone) -> Counterpart:
    rules = {
        r'conv1\.conv': 'conv_stem',
        r'conv1\.bn': 'bn1',
        r'conv2\.conv': 'conv_head',
        r'conv2\.bn': 'bn2',
    }
    for stage, _, steps in mobilenet_stages(('conv_pw', 'conv_dw', 'conv_pwl')):
        # a block that does not widen is another class of timm's, with another name for its last
        for index, step in enumerate(('conv_dw', 'conv_pw') if stage == 1 else steps):
            ours, theirs = rf'layer{stage}\.(\d+)\.conv\.{index}', rf'blocks.{stage - 1}.\1'
            rules[rf'{ours}\.conv'] = f'{theirs}.{step}'
            rules[rf'{ours}\.bn'] = f'{theirs}.bn{index + 1}'
    width = float(backbone.config.get('widen_factor', 1.0))
    return Counterpart(name=f'mobilenetv2_{round(100 * width):03d}', rename=partial(rename, rules))


def _vision_mobilenet(backbone: PretrainedBackbone) -> Counterpart:
    parts = {'conv': 0, 'bn': 1}
    rules = {rf'conv1\.{part}': f'features.0.{place}' for part, place in parts.items()}
    for stage, blocks, steps in mobilenet_stages(('widen', 'depthwise', 'linear')):
        last = len(steps) - 1
        for block, index, part in product(range(len(blocks)), range(len(steps)), parts):
            # the last convolution and its norm are two modules, all others one
            place = f'{last + parts[part]}' if index == last else f'{index}.{parts[part]}'
            ours = rf'layer{stage}\.{block}\.conv\.{index}\.{part}'
            rules[ours] = f'features.{blocks[block]}.conv.{place}'
    end = blocks[-1] + 1
    rules |= {rf'conv2\.{part}': f'features.{end}.{place}' for part, place in parts.items()}
    width = float(backbone.config.get('widen_factor', 1.0))
    return Counterpart(
        name='mobilenet_v2',
        rename=partial(rename, rules),
        arguments={} if width == 1 else {'width_mult': width},
        classifier=('classifier.',),
    )


def _convnext_size(config: Mapping[str, Any], sizes: Mapping[bool, Collection[str]]) -> str | None:
    """'tiny', 'base', ...; None if it is none of the sizes of its version."""
    arch, known = config.get('arch', 'tiny'), ConvNeXt.arch_settings
    wanted = arch if isinstance(arch, Mapping) else known.get(arch, {})
    second_version = bool(config.get('use_grn', False))
    if second_version == (config.get('layer_scale_init_value', 1e-6) > 0):
        return None
    for size in sizes[second_version]:
        if all(list(known[size][key]) == list(wanted.get(key, ())) for key in known[size]):
            return size
    return None


def _norms_left_out(backbone: PretrainedBackbone, library: str) -> dict[str, str]:
    """The norms that mmpretrain adds to all maps but the last, that of stage 3, with the reason."""
    reason = f'norms of earlier maps; {library} normalizes the last only'
    return {name: reason for name in backbone.weights if re.match(r'norm[012]\.', name)}


def _timm_convnext(backbone: PretrainedBackbone) -> Counterpart | None:
    config = backbone.config
    size = _convnext_size(config, _TIMM_SIZES)
    if size is None:
        return None
    after_pooling = config.get('gap_before_final_norm', True)
    norm = 'head.norm' if after_pooling else 'norm_pre'
    return Counterpart(
        name=f'convnext{"v2" if config.get("use_grn") else ""}_{size}',
        rename=partial(rename, {**_TIMM_CONVNEXT, 'norm3': norm}),
        arguments={} if after_pooling else {'head_norm_first': True},
        classifier=(f'{norm}.',),
        left_out=_norms_left_out(backbone, 'timm'),
    )


def _vision_convnext(backbone: PretrainedBackbone) -> Counterpart | None:
    size = _convnext_size(backbone.config, _VISION_SIZES)
    if size is None:
        return None
    left_out = _norms_left_out(backbone, 'torchvision')
    if not backbone.config.get('gap_before_final_norm', True):
        reason = 'torchvision normalizes after pooling, this network before'
        left_out |= {name: reason for name in backbone.weights if name.startswith('norm3.')}
    return Counterpart(
        name=f'convnext_{size}',
        rename=partial(rename, {**_VISION_CONVNEXT, 'norm3': 'classifier.0'}),
        classifier=('classifier.',),
        left_out=left_out,
    )


def _timm_vit(backbone: PretrainedBackbone) -> Counterpart:
    config = backbone.config
    arch = config.get('arch', 'base')
    if isinstance(arch, str):
        arch = VisionTransformer.arch_zoo[arch.lower()]
    width = arch['embed_dims']
    return Counterpart(
        name=f'vit_{_TIMM_VITS.get(width, "base")}_patch16_224',
        rename=partial(rename, _TIMM_VIT),
        arguments={
            'img_size': config.get('img_size', 224),
            'patch_size': config.get('patch_size', 16),
            'embed_dim': width,
            'depth': arch['num_layers'],
            'num_heads': arch['num_heads'],
            'mlp_ratio': arch['feedforward_channels'] / width,
        },
    )
