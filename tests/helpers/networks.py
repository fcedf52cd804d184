"""The networks that the sparse engine is tried on, unmodified, from three libraries.

In float64 and training mode, small where their library lets them be. Each entry makes its
network anew; all of them take images of whole 32 px cells.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import mmpretrain.models  # noqa: F401  registers the networks
import timm
import torch
import torchvision
from mmpretrain.models.backbones.resnest import SplitAttentionConv2d
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import make_layers

from hgkd_mm.sparse import CellMask, sparsify

from .sparse_reference import masked_copy, relative_error, run

ALL = (0, 1, 2, 3)
SMALL = dict(stem_channels=8, base_channels=8, out_indices=ALL)
WIDE = dict(stem_channels=8, base_channels=16, out_indices=ALL)
TINY_CONVNEXT = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])

MMPRETRAIN = {
    'resnet18': dict(type='ResNet', depth=18, **SMALL),
    'resnet50': dict(type='ResNet', depth=50, **SMALL),
    'resnet50-caffe': dict(type='ResNet', depth=50, style='caffe', **SMALL),
    'resnet18-droppath': dict(type='ResNet', depth=18, drop_path_rate=0.3, **SMALL),
    'resnet18-dilated': dict(
        type='ResNet', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **SMALL
    ),
    'resnet18-gn': dict(
        type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=4), **SMALL
    ),
    'resnetv1c50': dict(type='ResNetV1c', depth=50, **SMALL),
    'resnetv1d50': dict(type='ResNetV1d', depth=50, **SMALL),
    'resnext50': dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, **SMALL),
    'seresnet50': dict(type='SEResNet', depth=50, **WIDE),
    'res2net50': dict(
        type='Res2Net', depth=50, scales=4, base_width=8, deep_stem=False, avg_down=False, **WIDE
    ),
    'resnest50': dict(type='ResNeSt', depth=50, **WIDE),
    'regnetx400': dict(type='RegNet', arch='regnetx_400mf', out_indices=ALL),
    'resnet18-cifar': dict(type='ResNet_CIFAR', depth=18, **SMALL),
    'vgg11-bn': dict(type='VGG', depth=11, norm_cfg=dict(type='BN'), out_indices=(1, 2, 3, 4)),
    'densenet': dict(
        type='DenseNet',
        arch=dict(growth_rate=4, depths=[2, 2, 2, 2], init_channels=8),
        out_indices=ALL,
    ),
    'mobilenetv2': dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 7)),
    'mobilenetv3-small': dict(type='MobileNetV3', arch='small_050', out_indices=(1, 3, 8, 12)),
    'efficientnet-b0': dict(type='EfficientNet', arch='b0', out_indices=(2, 3, 4, 6)),
    'efficientnetv2-b0': dict(type='EfficientNetV2', arch='b0', out_indices=(2, 3, 5, 7)),
    'shufflenetv1': dict(type='ShuffleNetV1', groups=3, widen_factor=0.5, out_indices=(0, 1, 2)),
    'shufflenetv2': dict(type='ShuffleNetV2', widen_factor=0.5, out_indices=(0, 1, 2)),
    'convnext': dict(
        type='ConvNeXt', arch=TINY_CONVNEXT, out_indices=ALL, gap_before_final_norm=False
    ),
    'convnext-gap': dict(type='ConvNeXt', arch=TINY_CONVNEXT, drop_path_rate=0.3),
    'convnext-conv': dict(
        type='ConvNeXt',
        arch=TINY_CONVNEXT,
        linear_pw_conv=False,
        out_indices=ALL,
        gap_before_final_norm=False,
    ),
    'convnextv2': dict(
        type='ConvNeXt',
        arch=TINY_CONVNEXT,
        use_grn=True,
        layer_scale_init_value=0.0,
        out_indices=ALL,
        gap_before_final_norm=False,
    ),
    'hrnet-w18': dict(type='HRNet', arch='w18'),
    'cspdarknet53': dict(type='CSPDarkNet', depth=53),
    'repvgg-a0': dict(type='RepVGG', arch='A0', out_indices=ALL),
    'replknet': dict(
        type='RepLKNet',
        arch=dict(
            large_kernel_sizes=[7, 5, 5, 3],
            layers=[1, 1, 1, 1],
            channels=[8, 16, 16, 16],
            small_kernel=3,
            dw_ratio=1,
        ),
        out_indices=ALL,
    ),
    'poolformer': dict(
        type='PoolFormer',
        arch=dict(layers=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32], mlp_ratios=[2] * 4,
                  layer_scale_init_value=1e-1),
        out_indices=(0, 2, 4, 6),
    ),
}  # fmt: skip

TINY = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
TIMM = {
    'resnet18': dict(drop_path_rate=0.3),
    'resnet26d': {},
    'resnet50_gn': {},
    'resnetv2_50': {},
    'seresnet50': {},
    'ecaresnet26t': {},
    'skresnet18': {},
    'resnext50_32x4d': {},
    'regnety_002': {},
    'vgg11_bn': {},
    'densenet121': dict(growth_rate=4, block_config=(2, 2, 2, 2)),
    'dla34': {},
    'mobilenetv2_050': {},
    'mobilenetv3_small_050': {},
    'mobilenetv4_conv_small': {},
    'ghostnet_050': {},
    'mixnet_s': {},
    'rexnet_100': {},
    'efficientnet_b0': dict(drop_path_rate=0.3),
    'tf_efficientnetv2_b0': {},
    'convnext_atto': TINY | dict(drop_path_rate=0.3),
    'convnext_atto_ols': TINY,
    'convnext_atto_rms': TINY,
    'convnextv2_atto': TINY,
    'inception_next_atto': TINY,
    'nf_resnet26': {},
    'starnet_s1': {},
}


RESNET = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')
SHUFFLENET = ('conv1', 'maxpool', 'stage2', 'stage3', 'stage4', 'conv5')
TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    'resnet18': lambda: _part(torchvision.models.resnet18(), *RESNET),
    'resnext': lambda: _part(ResNet(Bottleneck, [1] * 4, groups=4, width_per_group=4), *RESNET),
    'regnet_y_400mf': lambda: _part(torchvision.models.regnet_y_400mf(), 'stem', 'trunk_output'),
    'vgg_bn': lambda: make_layers([8, 'M', 16, 'M', 24, 'M', 32, 'M', 32, 'M'], batch_norm=True),
    'densenet': lambda: torchvision.models.DenseNet(4, (2, 2, 2, 2), 8).features,
    'mobilenet_v2': lambda: torchvision.models.mobilenet_v2(width_mult=0.25).features,
    'mobilenet_v3_small': lambda: torchvision.models.mobilenet_v3_small(width_mult=0.5).features,
    'efficientnet': lambda: _efficientnet(MBConvConfig),
    'efficientnet_v2': lambda: _efficientnet(FusedMBConvConfig),
    'shufflenet_v2_x0_5': lambda: _part(torchvision.models.shufflenet_v2_x0_5(), *SHUFFLENET),
    'convnext': lambda: _convnext(),
    'mnasnet0_5': lambda: torchvision.models.mnasnet0_5().layers,
}

NETWORKS = (
    *(f'mmpretrain/{name}' for name in MMPRETRAIN),
    *(f'timm/{name}' for name in TIMM),
    *(f'torchvision/{name}' for name in TORCHVISION),
)


def build(name: str) -> nn.Module:
    """A network of `NETWORKS`, with norms that do something and all randomness seeded."""
    source, name = name.split('/')
    torch.manual_seed(0)
    if source == 'mmpretrain':
        network = MODELS.build(copy.deepcopy(MMPRETRAIN[name]))
    elif source == 'timm':
        network = timm.create_model(name, features_only=True, **TIMM[name])
    else:
        network = TORCHVISION[name]()
    network = network.double()
    network.train()
    for module in network.modules():
        norm = isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm)
        if norm and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, SplitAttentionConv2d):
            # Over three pooled vectors its variance is tiny and magnifies rounding.
            module.norm1.eval()
    return network


def errors_of(name: str, engines: Sequence[str] = ('tiles', 'masked_dense')) -> dict[str, dict]:
    """Largest relative errors of a network against the slow reference, by engine and kind.

    Three images of 2 x 3 cells with a different number of visible ones each.
    """
    visible = torch.tensor(
        [[[1, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[1, 1, 1], [0, 0, 1]]], dtype=torch.bool
    )
    return errors_on(lambda: build(name), visible, 32, engines)


def errors_on(
    make: Callable[[], nn.Module], visible: Tensor, cell: int, engines: Sequence[str]
) -> dict[str, dict]:
    """The same for any network, made anew for each run, and any mask (B, gh, gw) of cells."""
    torch.manual_seed(1)
    batch, gh, gw = visible.shape
    images = torch.randn(batch, 3, gh * cell, gw * cell, dtype=torch.double)
    wide = visible.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
    x = images.clone().requires_grad_()
    want = run(masked_copy(make(), visible), x, torch.where(wide, x, 0))
    errors = {}
    for engine in engines:
        x = images.clone().requires_grad_()
        got = run(make(), x, sparsify(x, CellMask(visible), engine))
        errors[engine] = relative_error(got, want)
    return errors


def _part(network: nn.Module, *names: str) -> nn.Module:
    return nn.Sequential(*(getattr(network, name) for name in names))


def _efficientnet(first: type) -> nn.Module:
    stages = [
        first(4, 3, 2, 8, 8, 1, 1, 1) if first is MBConvConfig else first(4, 3, 2, 8, 8, 1),
        MBConvConfig(4, 5, 2, 8, 16, 2, 1, 1),
        MBConvConfig(6, 3, 2, 16, 24, 1, 1, 1),
        MBConvConfig(6, 5, 2, 24, 32, 1, 1, 1),
    ]
    return EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.3, last_channel=64).features


def _convnext() -> nn.Module:
    widths = (8, 16, 24, 32)
    blocks = [CNBlockConfig(a, b, 1) for a, b in zip(widths, (*widths[1:], None), strict=True)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.3).features
