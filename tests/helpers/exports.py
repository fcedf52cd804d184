"""Backbones with random weights and statistics, and checkpoints of runs that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmpretrain.models  # noqa: F401  registers the networks
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor, nn

STAGES = (0, 1, 2, 3)
NETWORKS = {
    'resnet18': dict(type='ResNet', depth=18, out_indices=STAGES),
    'resnet50': dict(type='ResNet', depth=50, out_indices=STAGES),
    'resnetv1d18': dict(type='ResNetV1d', depth=18, out_indices=STAGES),
    'resnetv1c50': dict(type='ResNetV1c', depth=50, out_indices=STAGES),
    'resnext50': dict(type='ResNeXt', depth=50, out_indices=STAGES),
    'mobilenetv2-half': dict(type='MobileNetV2', widen_factor=0.5, out_indices=(1, 2, 4, 7)),
    'convnext': dict(
        type='ConvNeXt', arch='tiny', out_indices=STAGES, gap_before_final_norm=False
    ),
    'convnext-pooled': dict(type='ConvNeXt', arch='atto'),
    'convnext-conv': dict(type='ConvNeXt', arch='tiny', linear_pw_conv=False),
    'vit-small': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
        img_size=64, patch_size=16, out_type='raw',
    ),
    'deit-tiny': dict(type='VisionTransformer', arch='deit-tiny', img_size=64, out_type='raw'),
    'convnextv2': dict(type='ConvNeXt', arch='atto', use_grn=True, layer_scale_init_value=0.0),
}  # fmt: skip
MEAN = [123.675, 116.28, 103.53]


def random_backbone(config: dict, seed: int = 3) -> nn.Module:
    """mmpretrain's network in eval mode, none of whose weights and statistics is a round number."""
    network = MODELS.build({**config, '_scope_': 'mmpretrain'})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith('running_mean') or name.endswith(('bias', 'beta')):
                value.normal_(0, 0.1, generator=generator)
            elif value.ndim > 1:
                fan_in = value[0].numel()
                value.normal_(0, fan_in**-0.5, generator=generator)
            elif value.is_floating_point():
                value.uniform_(0.5, 1.0, generator=generator)
            else:
                value.fill_(7)
    network.train(False)
    return network


def config_text(backbone: dict, **model: object) -> str:
    """A run's config as the Runner puts it into checkpoints."""
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=MEAN, to_rgb=True)
    whole = dict(type='HGKD', backbone=backbone, data_preprocessor=preprocessor, **model)
    return Config(dict(model=whole, work_dir='runs/a')).pretty_text


def write_checkpoint(
    path: Path, network: nn.Module, backbone: dict, *, meta: dict | None = None, **rest: object
) -> Path:
    """Writes what the Runner writes: backbone, other parts of the model, meta."""
    weights = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    weights['neck.projection.weight'] = torch.zeros(2, 2)
    known = dict(cfg=config_text(backbone), epoch=4, iter=752, experiment_name='hgkd_tiny_2026')
    content = dict(meta=known | (meta or {}), state_dict=weights, **rest)
    torch.save(content, path)
    return path


def images(size: int = 64) -> Tensor:
    """Two images that are not square."""
    generator = torch.Generator().manual_seed(11)
    return torch.randn(2, 3, size, size + 32, generator=generator)


def outputs_of(network: nn.Module, modules: Sequence[str], inputs: Tensor) -> list[Tensor]:
    """What the named modules give while the network looks at the images."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.__setitem__(name, _kept(output))
        )
        for name in modules
    ]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    return [seen[name] for name in modules]


def _kept(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    last = output if isinstance(output, Tensor) else output[-1]
    # a copy, since some activations that follow work in place; pooled features as (B, C)
    return last.flatten(1).clone() if last.shape[-1] == 1 else last.clone()


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Compares maps relative to the largest value of each."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = other.abs().max().item()
        assert scale > 1e-2
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)
