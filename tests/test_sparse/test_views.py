"""Padded, grouped and channels-last views of a map, statistics over images, half types."""

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, MASK, compare, dense_input
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, UnsupportedOpError, sparsify


@pytest.mark.parametrize('engine', ENGINES)
def test_uneven_padding(engine: str) -> None:
    even = nn.Conv2d(4, 8, 2, 1, 'same', dtype=torch.double)
    bare = nn.Conv2d(4, 8, 3, 2, dtype=torch.double)
    depthwise = nn.Conv2d(4, 4, 5, 2, groups=4, dtype=torch.double)
    low = -torch.inf
    for op, params in (
        (even, even.parameters()),
        (lambda x: bare(F.pad(x, (0, 1, 0, 1))), bare.parameters()),
        (lambda x: depthwise(F.pad(x, (1, 2, 2, 1))), depthwise.parameters()),
        (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=low), 3, 2), ()),
        (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2), ()),
        (lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 0)), 3, 2), ()),
    ):
        for tile in (2, 4, 8):
            compare(engine, tile, op, params=tuple(params))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    ('use', 'words'),
    [
        (lambda x: F.pad(x, (1, 1, 1, 1), mode='reflect'), "mode='constant'"),
        (lambda x: F.relu(F.pad(x, (1, 1, 1, 1))), 'a PaddedMap does not know this op'),
        (lambda x: F.conv2d(F.pad(x, (1, 1), value=2.0), torch.ones(1, 4, 3, 3)), 'padded with'),
        (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1, 1), 'one place only'),
        (lambda x: F.interpolate(x, scale_factor=2, mode='bilinear'), "only mode='nearest'"),
        (lambda x: F.interpolate(x, size=(9, 12)), 'whole multiple of 6 x 8'),
        (lambda x: x[:, 0], 'only channels can be taken'),
        (lambda x: x[:, 1:3, 2:], 'only channels can be taken'),
        (lambda x: x.permute(0, 3, 1, 2), r'only to \(B, H, W, C\)'),
        (lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 3, 1), 'only back to'),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8, 4)), 'only over the 4 channels'),
        (lambda x: x.norm(dim=1), 'known is the 2-norm over space'),
        (lambda x: x.mean(dim=0), 'known are the means'),
        (lambda x: x.view(3, 2, 2, 6, 8).transpose(0, 1), 'only the two axes of channels'),
        (lambda x: x.view(3, 4, 48), 'can only be seen as'),
        (lambda x: torch.stack([x, x], 0), 'along dim=1 only'),
        (lambda x: x.view(3, 2, 2, 6, 8) * 2.0, r'must be \(B, 2, C, 1, 1\), got 2.0'),
        (lambda x: F.interpolate(x, scale_factor=2.05), 'whole multiple'),
        (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2, ceil_mode=True), 'run over the edge'),
        (lambda x: x.mean((2, 3), dtype=torch.double), "mean in layer .*'dtype'"),
        (lambda x: torch.div(x, 2, rounding_mode='floor'), "div in layer .*'rounding_mode'"),
        (lambda x: x.__setitem__((0, 0), 1.0), 'compare or index rows'),
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
        lambda x: torch.flatten(x.unflatten(1, (2, 2)).permute(0, 2, 1, 3, 4), 1, 2),
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
def test_statistics_of_an_image_count_its_visible_positions(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    assert y.shape == (3, 4, 6, 8) and y.permute(0, 2, 3, 1).shape == (3, 6, 8, 4)
    visible = mask.at((6, 8))
    group = F.group_norm(y, 2, eps=1e-3).to_dense()
    for image in range(3):
        values = x[image][:, visible[image]].view(2, -1)
        mean, variance = values.mean(1), values.var(1, unbiased=False)
        want = ((values - mean[:, None]) / (variance[:, None] + 1e-3).sqrt()).view(4, -1)
        torch.testing.assert_close(group[image][:, visible[image]], want)
    norm = x.square().sum((2, 3)).sqrt()
    torch.testing.assert_close(y.norm(p=2, dim=(2, 3)), norm)
    last = y.permute(0, 2, 3, 1)
    torch.testing.assert_close(last.norm(p=2, dim=(1, 2), keepdim=True)[:, 0, 0], norm)
    torch.testing.assert_close(last.mean((1, 2)), y.mean_visible())


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('norm', [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)], ids=str)
def test_group_norm_of_equal_and_of_unequal_counts_agree(engine: str, norm: nn.Module) -> None:
    equal = CellMask.random(batch=2, grid=(3, 3), mask_ratio=0.5)
    ragged = torch.cat([equal.visible, torch.ones(1, 3, 3, dtype=torch.bool)])
    norm = norm.double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 4, 6, 6, dtype=torch.double, requires_grad=True)
    got = norm(sparsify(x[:2], equal, engine)).to_dense()
    want = norm(sparsify(x, CellMask(ragged), engine)).to_dense()[:2]
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(got)
    one = torch.autograd.grad((got * weights).sum(), [x, *norm.parameters()])
    other = torch.autograd.grad((want * weights).sum(), [x, *norm.parameters()])
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('engine', ENGINES)
def test_the_norm_of_nothing_has_a_gradient(engine: str) -> None:
    visible = torch.tensor([[[True, False]], [[False, False]]])
    x = torch.randn(2, 4, 2, 4, dtype=torch.double, requires_grad=True)
    y = sparsify(x, CellMask(visible), engine)
    (y * y.norm(p=2, dim=(2, 3), keepdim=True)).to_dense().sum().backward()
    assert x.grad.isfinite().all() and x.grad[0].abs().sum() > 0


@pytest.mark.parametrize('engine', ENGINES)
def test_a_map_may_divide_although_hidden_positions_hold_zero(engine: str) -> None:
    mask, x = dense_input(2)
    weight = torch.ones(1, 4, 1, 1, dtype=torch.double, requires_grad=True)
    got = (weight / sparsify(x, mask, engine)).to_dense()
    got.sum().backward()
    visible = mask.at((6, 8))[:, None].expand_as(x)
    want = torch.where(visible, 1 / torch.where(visible, x, 1), 0)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(weight.grad, want.sum((0, 2, 3), keepdim=True))


@pytest.mark.parametrize('engine', ENGINES)
def test_a_contiguous_view_is_a_copy_and_a_plain_one_is_not(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    y.permute(0, 2, 3, 1).contiguous().mul_(0)
    assert torch.equal(y.to_dense(), x)
    y.permute(0, 2, 3, 1).mul_(0)
    assert not y.to_dense().any()


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('ragged', [False, True])
def test_sums_over_an_image_keep_their_precision_in_half_types(engine: str, ragged: bool) -> None:
    mask = CellMask.random(batch=3, grid=(4, 4), mask_ratio=0.5) if not ragged else CellMask(MASK)
    height, width = (16 * g for g in mask.grid)
    x = 3 + torch.randn(3, 4, height, width)
    want = sparsify(x, mask, engine)
    for dtype, close in ((torch.half, 2e-3), (torch.bfloat16, 1e-2)):
        got = sparsify(x.to(dtype), mask, engine)
        for statistic in (
            lambda y: y.mean_visible(),
            lambda y: torch.linalg.vector_norm(y, ord=2, dim=(2, 3)),
            lambda y: torch.norm(y.permute(0, 2, 3, 1), p=2, dim=(1, 2)),
        ):
            a, b = statistic(got), statistic(want)
            assert a.dtype == dtype
            torch.testing.assert_close(a.float(), b, rtol=close, atol=close)


@pytest.mark.parametrize('engine', ENGINES)
def test_autocast_leaves_double_precision_alone(engine: str) -> None:
    mask, x = dense_input(2)
    conv = nn.Conv2d(4, 4, 3, 1, 1, dtype=torch.double)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got, want = conv(sparsify(x, mask, engine)), conv(x)
    assert got.dtype == want.dtype == torch.double
