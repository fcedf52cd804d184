"""Each op on a SparseFeatureMap against the dense op on zero-filled maps."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, MASK, compare, dense_input
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, UnsupportedOpError, sparsify
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
def test_activations_and_arithmetic(engine: str) -> None:
    per_channel = torch.randn(1, 4, 1, 1, dtype=torch.double)
    per_image = torch.randn(3, 4, 1, 1, dtype=torch.double)
    everywhere = torch.randn(3, 4, 12, 16, dtype=torch.double)
    for op in (
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.GELU(),
        nn.SiLU(),
        nn.Hardswish(),
        torch.sigmoid,
        lambda x: x.sigmoid(),
        lambda x: x + 1.5,
        lambda x: 2 - x,
        lambda x: -x,
        lambda x: x.div(0.7) * per_image,
        lambda x: per_channel * x + x,
        lambda x: per_channel - x,
        lambda x: x - everywhere,
        lambda x: torch.cat([x, x * x], dim=1),
        lambda x: torch.cat(tuple(reversed(torch.chunk(x, 2, dim=1))), 1),
        lambda x: torch.split(x, [1, 3], 1)[1],
        lambda x: x.clone().mul_(3).add_(x),
        lambda x: x / (x * x + 1),
    ):
        compare(engine, 4, op)


@pytest.mark.parametrize('engine', ENGINES)
def test_in_place_changes_the_map_itself(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    same = F.relu(y, inplace=True)
    assert same is y
    torch.testing.assert_close(y.to_dense(), x.relu())
    y += y
    torch.testing.assert_close(y.to_dense(), 2 * x.relu())


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
def test_dense_with_a_learned_fill(engine: str) -> None:
    mask, x = dense_input(2)
    token = torch.randn(1, 4, 1, 1, dtype=torch.double, requires_grad=True)
    dense = sparsify(x, mask, engine).to_dense(token)
    visible = mask.at((6, 8))[:, None]
    torch.testing.assert_close(dense, torch.where(visible, x, token))
    dense.sum().backward()
    hidden = (~visible).sum().item()
    torch.testing.assert_close(token.grad, torch.full_like(token, hidden))
    assert torch.equal(
        sparsify(x, mask, engine).to_dense(7.0)[~visible.expand_as(x)].unique(),
        torch.tensor([7.0]).double(),
    )


@pytest.mark.parametrize('engine', ENGINES)
def test_it_tells_of_itself_what_a_tensor_would(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    assert y.shape == x.shape and y.size() == x.size() and y.size(1) == 4
    assert y.dim() == y.ndim == 4 and y.numel() == x.numel()
    assert y.dtype == torch.double and y.device == x.device and not y.requires_grad
    assert y.float().dtype == torch.float
    assert y.contiguous() is y
    assert 'SparseFeatureMap(3x4x6x8' in repr(y)


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(x, (3,))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    ('layer', 'error', 'words'),
    [
        (Flip(), UnsupportedOpError, r"flip in layer 'body.1' \(Flip\)"),
        (nn.Conv2d(4, 4, 3), ValueError, r"conv2d in layer 'body.1' \(Conv2d\).*Pad by half"),
        (nn.Conv2d(4, 4, 4, 4), ValueError, r"layer 'body.1'.*Stride.*mask.cell"),
        (nn.Conv2d(8, 4, 1), ValueError, r"layer 'body.1'.*wants 8 channels, the map has 4"),
        (nn.AdaptiveAvgPool2d(2), UnsupportedOpError, 'only global pooling'),
        (
            nn.MaxPool2d(2, return_indices=True),
            UnsupportedOpError,
            'max_pool2d_with_indices in layer',
        ),
    ],
)
def test_what_it_cannot_do_names_the_op_and_the_layer(engine, layer, error, words) -> None:
    mask, x = dense_input(2)
    with pytest.raises(error, match=words):
        Net(layer)(sparsify(x.float(), mask, engine))


@pytest.mark.parametrize('engine', ENGINES)
def test_maps_of_different_masks_do_not_mix(engine: str) -> None:
    mask, x = dense_input(2)
    with pytest.raises(UnsupportedOpError, match='one sparsify call'):
        sparsify(x, mask, engine) + sparsify(x, CellMask(MASK), engine)
    with pytest.raises(UnsupportedOpError, match='do not broadcast'):
        sparsify(x, mask, engine) + torch.zeros(3, 4, 5, 5)


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
@pytest.mark.parametrize(
    'use',
    [
        lambda x: x == x,
        lambda x: x > 0,
        lambda x: x[0],
        lambda x: x @ x,
        lambda x: 1 / x,
        lambda x: bool(x),
        lambda x: len(x),
        lambda x: x.to('meta'),
        lambda x: x.T,
        lambda x: x.flatten(1),
    ],
)
def test_no_operator_falls_through_to_python(engine: str, use) -> None:
    mask, x = dense_input(2)
    with pytest.raises(UnsupportedOpError, match='in layer'):
        use(sparsify(x, mask, engine))


@pytest.mark.parametrize('engine', ENGINES)
def test_a_fill_of_the_wrong_width_is_refused(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    assert torch.equal(y.to_dense(torch.tensor(3.0)), y.to_dense(3.0))
    with pytest.raises(ValueError, match='one for each of 4 channels'):
        y.to_dense(torch.zeros(3))


@pytest.mark.parametrize('engine', ENGINES)
def test_in_place_keeps_the_type(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine).bfloat16()
    y += torch.ones(1, 4, 1, 1)
    assert y.dtype == torch.bfloat16
