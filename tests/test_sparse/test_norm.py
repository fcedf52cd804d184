"""Norms and means over space count visible positions."""

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, MASK, dense_input
from torch import nn

from hgkd_mm.sparse import CellMask, sparsify


@pytest.mark.parametrize('engine', ENGINES)
def test_space_statistics_count_visible_positions(engine: str) -> None:
    mask, x = dense_input(4)
    y = sparsify(x, mask, engine)
    positions = MASK.sum((1, 2)).double() * 16
    want = x.sum((2, 3)) / positions[:, None]
    torch.testing.assert_close(y.mean_visible(), want)
    torch.testing.assert_close(y.mean((2, 3)), want)
    torch.testing.assert_close(F.adaptive_avg_pool2d(y, 1)[:, :, 0, 0], want)
    bn = nn.BatchNorm2d(4, dtype=torch.double)
    rows = bn(y).rows
    torch.testing.assert_close(rows.mean(0), torch.zeros(4, dtype=torch.double))
    torch.testing.assert_close(bn.running_mean, 0.1 * y.rows.mean(0).detach())


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
def test_group_norm_of_equal_and_of_unequal_counts_agree(engine: str) -> None:
    equal = CellMask.random(batch=2, grid=(3, 3), mask_ratio=0.5)
    ragged = torch.cat([equal.visible, torch.ones(1, 3, 3, dtype=torch.bool)])
    norm = nn.GroupNorm(2, 4, dtype=torch.double)
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
            lambda y: torch.norm(y, p=2, dim=(2, 3)),
            lambda y: torch.norm(y.permute(0, 2, 3, 1), p=2, dim=(1, 2)),
        ):
            a, b = statistic(got), statistic(want)
            assert a.dtype == dtype
            torch.testing.assert_close(a.float(), b, rtol=close, atol=close)
