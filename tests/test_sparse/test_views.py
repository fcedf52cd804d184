"""Grouped and channels-last views of a map, and what all views refuse."""

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, compare, dense_input
from torch import Tensor, nn

from hgkd_mm.sparse import UnsupportedOpError, sparsify


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    ('use', 'words'),
    [
        (lambda x: F.pad(x, (1, 1, 1, 1), mode='reflect'), 'pad in layer'),
        (lambda x: F.relu(F.pad(x, (1, 1, 1, 1))), 'relu in layer'),
        (
            lambda x: F.conv2d(F.pad(x, (1, 1), value=2.0), torch.ones(1, 4, 3, 3)),
            'conv2d in layer',
        ),
        (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1, 1), 'max_pool2d in layer'),
        (lambda x: F.interpolate(x, scale_factor=2, mode='bilinear'), 'interpolate in layer'),
        (lambda x: F.interpolate(x, size=(9, 12)), 'interpolate in layer'),
        (lambda x: x[:, 0], 'getitem in layer'),
        (lambda x: x[:, 1:3, 2:], 'getitem in layer'),
        (lambda x: x.permute(0, 3, 1, 2), 'permute in layer'),
        (lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 3, 1), 'permute in layer'),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8, 4)), 'layer_norm in layer'),
        (lambda x: x.norm(dim=1), 'norm in layer'),
        (lambda x: x.mean(dim=0), 'mean in layer'),
        (lambda x: x.view(3, 2, 2, 6, 8).transpose(0, 1), 'transpose in layer'),
        (lambda x: x.view(3, 4, 48), 'view in layer'),
        (lambda x: torch.stack([x, x], 0), 'stack in layer'),
        (lambda x: x.view(3, 2, 2, 6, 8) * 2.0, 'mul in layer'),
        (lambda x: F.interpolate(x, scale_factor=2.05), 'interpolate in layer'),
        (
            lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2, ceil_mode=True),
            'max_pool2d in layer',
        ),
        (lambda x: x.mean((2, 3), dtype=torch.double), "mean in layer .*'dtype'"),
        (lambda x: torch.div(x, 2, rounding_mode='floor'), "div in layer .*'rounding_mode'"),
        (lambda x: x.__setitem__((0, 0), 1.0), 'operator in layer'),
    ],
)
def test_views_refuse_what_has_no_meaning(engine: str, use, words: str) -> None:
    mask, x = dense_input(2)
    with pytest.raises((UnsupportedOpError, ValueError), match=words):
        use(sparsify(x.float(), mask, engine))


@pytest.mark.parametrize('engine', ENGINES)
def test_channels_may_be_taken_and_shuffled(engine: str) -> None:
    def shuffle(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        groups = x.view(batch, 2, channels // 2, height, width)
        return torch.transpose(groups, 1, 2).contiguous().view(batch, -1, height, width)

    def attend(x: Tensor) -> Tensor:
        weights = torch.tensor([0.25, 3.0], dtype=torch.double).view(1, 2, 1, 1, 1)
        return (torch.stack([x, x.square()], dim=1) * weights.expand(3, 2, 4, 1, 1)).sum(1)

    for op in (
        shuffle,
        attend,
        lambda x: x[:, 1:3],
        lambda x: x[:, ::2, ...],
        lambda x: x[:, :-1, :, :],
        lambda x: x.reshape(3, 2, 2, 12, 16).transpose(2, 1).reshape(3, 4, 12, 16),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(24, 48), mode='nearest'),
        lambda x: x * torch.ones(3, 4, 1, 1).double().expand_as(x),
    ):
        compare(engine, 4, op)


@pytest.mark.parametrize('engine', ENGINES)
def test_channels_last(engine: str) -> None:
    linear, norm = nn.Linear(4, 6, dtype=torch.double), nn.LayerNorm(4, dtype=torch.double)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    scale = torch.randn(4, dtype=torch.double)
    per_image = torch.randn(3, 1, 1, 4, dtype=torch.double)

    def last(op):
        return lambda x: op(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()

    for op, params in (
        (linear, linear.parameters()),
        (norm, norm.parameters()),
        (lambda x: F.gelu(x) * scale + x, ()),
        (lambda x: 2 - x * per_image, ()),
        (lambda x: torch.addcmul(scale, scale, x * per_image), ()),
        (lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(), ()),
        (lambda x: x.contiguous().mul_(scale), ()),
    ):
        compare(engine, 2, last(op), params=tuple(params))


@pytest.mark.parametrize('engine', ENGINES)
def test_a_contiguous_view_is_a_copy_and_a_plain_one_is_not(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    y.permute(0, 2, 3, 1).contiguous().mul_(0)
    assert torch.equal(y.to_dense(), x)
    y.permute(0, 2, 3, 1).mul_(0)
    assert not y.to_dense().any()
