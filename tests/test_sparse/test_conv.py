"""Convolution and pooling against the dense op on zero-filled maps, by every method."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, MASK, compare, dense_input
from torch import nn

from hgkd_mm.sparse import CellMask, sparsify
from hgkd_mm.sparse.conv import METHODS, Conv, conv_rows
from hgkd_mm.sparse.window import Geometry, Window

GEOMETRIES = [
    # tile, kernel, stride, padding, dilation, groups
    *((t, 3, s, 1, 1, 1) for t, s in itertools.product((1, 2, 4, 8), (1, 2)) if t >= s),
    *((t, 7, s, 3, 1, 1) for t, s in itertools.product((2, 8), (1, 2))),
    (16, 7, 2, 3, 1, 1),
    (4, 1, 1, 0, 1, 1),
    (4, 1, 2, 0, 1, 1),
    (4, 2, 2, 0, 1, 1),
    (8, 4, 4, 0, 1, 1),
    (4, 5, 1, 4, 2, 1),
    (2, 3, 1, 2, 2, 1),
    (8, 3, 1, 1, 1, 2),
    (2, 3, 2, 1, 1, 4),
    (1, 7, 1, 3, 1, 4),
    (4, (1, 3), (1, 2), (0, 1), 1, 1),
]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_convolution(geometry: tuple, engine: str) -> None:
    tile, kernel, stride, padding, dilation, groups = geometry
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, dtype=torch.double)
    compare(engine, tile, conv, params=tuple(conv.parameters()))


@pytest.mark.parametrize(
    ('method', 'groups'),
    [('halo', 1), ('canvas', 1), ('columns', 1), ('taps', 1), ('halo', 2), ('canvas', 4)],
)
@pytest.mark.parametrize(
    ('tile', 'stride', 'padding', 'trailing'),
    [
        *((t, s, (1, 1), None) for t, s in itertools.product((2, 4, 8), (1, 2))),
        (4, 2, (0, 1), (1, 1)),
        (4, 1, (0, 2), (2, 0)),
        (4, 4, (1, 1), None),
    ],
)
def test_every_way_to_convolve_gives_the_same(
    tile: int, stride: int, padding: tuple, trailing: tuple | None, method: str, groups: int
) -> None:
    mask, x = dense_input(tile)
    window = Window((3, 3), (stride, stride), padding, trailing=trailing)
    geometry = Geometry.of(window, (tile, tile), mask.grid)
    weight = torch.randn(8, 4 // groups, 3, 3, dtype=torch.double, requires_grad=True)
    bias = torch.randn(8, dtype=torch.double, requires_grad=True)
    source = x.clone().requires_grad_()
    rows = sparsify(source, mask).rows
    got = conv_rows(rows, weight, bias, Conv(mask, geometry, groups), METHODS[method])
    (top, left), (bottom, right) = padding, trailing or padding
    padded = F.pad(source, (left, right, top, bottom))
    want = F.conv2d(padded, weight, bias, stride, groups=groups)
    want = want.permute(0, 2, 3, 1).reshape(-1, 8)[mask.positions(geometry.out_tile)]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad(got, (source, weight, bias), g, retain_graph=True),
        torch.autograd.grad(want, (source, weight, bias), g),
        strict=True,
    ):
        visible = mask.at(tuple(x.shape[-2:]))[:, None] if one.shape == x.shape else 1
        torch.testing.assert_close(one, other * visible, rtol=1e-12, atol=1e-12)


POOLINGS = (
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, 2),
    nn.MaxPool2d(3, 1, 1),
    nn.AvgPool2d(2, 2),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('tile', [2, 4])
def test_pooling(engine: str, tile: int) -> None:
    for op in POOLINGS:
        compare(engine, tile, op)


@pytest.mark.parametrize('tile', [2, 4])
def test_pooling_the_way_of_a_gpu(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hgkd_mm.sparse.tiles.full_map_pays', lambda device: True)
    for op in POOLINGS:
        compare('tiles', tile, op)
    # Padded by hand, as networks that came from TensorFlow do: with zeros, or with -inf.
    for value in (0.0, -torch.inf):
        compare(
            'tiles', tile, lambda x, v=value: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=v), 3, 2)
        )


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('tile', [(8, 4), (2, 1), (4, 16)], ids=str)
def test_cells_that_are_not_square(tile: tuple[int, int], engine: str) -> None:
    mask = CellMask(MASK)
    size = (3 * tile[0], 4 * tile[1])
    torch.manual_seed(0)
    visible = mask.at(size)[:, None]
    x = torch.randn(3, 4, *size, dtype=torch.double)
    stride = tuple(2 if t > 1 else 1 for t in tile)
    per_image = torch.randn(3, 4, 1, 1, dtype=torch.double)
    for op in (
        nn.Conv2d(4, 4, 3, 1, 1, dtype=torch.double),
        nn.Conv2d(4, 4, 5, stride, 2, dtype=torch.double),
        nn.Conv2d(4, 4, 3, 1, 1, groups=4, dtype=torch.double),
        nn.MaxPool2d(3, stride, 1),
        lambda m: m * per_image,
    ):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, want = op(sparsify(a, mask, engine)).to_dense(), op(torch.where(visible, b, 0))
        want = want * mask.at(tuple(want.shape[-2:]))[:, None]
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
        got.square().sum().backward()
        want.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11)


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
def test_autocast_leaves_double_precision_alone(engine: str) -> None:
    mask, x = dense_input(2)
    conv = nn.Conv2d(4, 4, 3, 1, 1, dtype=torch.double)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got, want = conv(sparsify(x, mask, engine)), conv(x)
    assert got.dtype == want.dtype == torch.double
