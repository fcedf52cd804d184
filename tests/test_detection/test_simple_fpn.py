"""The pyramid against plain torch, written down from ViTDet's paper and Detectron2's widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

import hgkd_mm.detection  # noqa: F401  (registers)


def pyramid(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type='SimpleFPN', **settings))


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    """Over the channels of each pixel, by its definition."""
    mean = x.mean(1, keepdim=True)
    variance = x.var(1, unbiased=False, keepdim=True)
    scale, shift = (value.view(1, -1, 1, 1) for value in (layer.weight, layer.bias))
    return (x - mean) / (variance + 1e-6).sqrt() * scale + shift


def twice(x: Tensor, layer: nn.Module) -> Tensor:
    """A transposed 2 x 2 convolution of stride 2: each pixel becomes 2 x 2 of its own."""
    pixels = torch.einsum('bchw,coij->bohiwj', x, layer.weight)
    b, o, h, _, w, _ = pixels.shape
    return pixels.reshape(b, o, 2 * h, 2 * w) + layer.bias.view(1, -1, 1, 1)


def end(x: Tensor, layers: nn.Sequential) -> Tensor:
    narrow, first, smooth, second = layers
    assert narrow.bias is None and smooth.bias is None
    x = norm(torch.einsum('bchw,oc->bohw', x, narrow.weight[:, :, 0, 0]), first)
    return norm(F.conv2d(x, smooth.weight, padding=1), second)


def test_levels_are_the_papers() -> None:
    neck = pyramid(in_channels=16, out_channels=6).double()
    for weight in neck.parameters():  # norms begin as one and zero, which would hide them
        nn.init.normal_(weight)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    quarter, half, same, double = neck.levels
    middle = F.gelu(norm(twice(x, quarter[0]), quarter[1]))
    coarse = x.reshape(2, 16, 2, 2, 3, 2).amax((3, 5))
    expected = [
        end(twice(middle, quarter[3]), quarter[4:]),
        end(twice(x, half[0]), half[1:]),
        end(x, same),
        end(coarse, double[1:]),
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    maps = neck((torch.zeros(1), x))
    assert len(maps) == 5
    for level, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(level, reference)


def test_shapes_and_weights_of_vit_b() -> None:
    with torch.device('meta'):
        neck = pyramid(in_channels=768)
        maps = neck((torch.zeros(1, 768, 14, 20),))
    assert [tuple(m.shape) for m in maps] == [
        (1, 256, 56, 80),
        (1, 256, 28, 40),
        (1, 256, 14, 20),
        (1, 256, 7, 10),
        (1, 256, 4, 5),
    ]
    kernels = [[tuple(p.shape) for p in level.parameters() if p.ndim == 4] for level in neck.levels]
    smooth = (256, 256, 3, 3)
    assert kernels == [
        [(768, 384, 2, 2), (384, 192, 2, 2), (256, 192, 1, 1), smooth],
        [(768, 384, 2, 2), (256, 384, 1, 1), smooth],
        [(256, 768, 1, 1), smooth],
        [(256, 768, 1, 1), smooth],
    ]


def test_every_weight_learns() -> None:
    neck = pyramid(in_channels=8, out_channels=4)
    maps = neck((torch.randn(1, 8, 4, 4),))
    # a norm's output sums to its bias, so that a plain sum would teach nothing
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_other_numbers_of_levels_and_norms() -> None:
    settings = dict(in_channels=8, out_channels=4, norm_cfg=dict(type='GN', num_groups=2))
    neck = pyramid(**settings, num_outs=4)
    assert len(neck((torch.zeros(1, 8, 4, 4),))) == 4
    assert {type(m) for m in neck.modules() if 'Norm' in type(m).__name__} == {nn.GroupNorm}


@pytest.mark.parametrize('settings', [dict(in_channels=6), dict(in_channels=8, num_outs=3)])
def test_refusals(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match='a multiple of 4 and num_outs of 4 or more'):
        pyramid(**settings)
