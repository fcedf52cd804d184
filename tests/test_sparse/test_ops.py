"""Each op on a SparseFeatureMap against the dense op on zero-filled maps."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, UnsupportedOpError, sparsify
from hgkd_mm.sparse.conv import ConvPlan, conv_rows
from hgkd_mm.sparse.window import Window

ENGINES = ('tiles', 'masked_dense')
MASK = torch.tensor(
    [
        [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1]],
        [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
        [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]],
    ],
    dtype=torch.bool,
)


def dense_input(tile: int, channels: int = 4) -> tuple[CellMask, Tensor]:
    """A mask and a (3, C, 3 tile, 4 tile) tensor that is zero where hidden."""
    mask = CellMask(MASK)
    torch.manual_seed(tile)
    x = torch.randn(3, channels, 3 * tile, 4 * tile, dtype=torch.double)
    return mask, x * mask.at((3 * tile, 4 * tile))[:, None]


def compare(engine: str, tile: int, op, channels: int = 4, params=()) -> None:
    """Value and gradients of ``op`` on both kinds of map, hidden positions set to zero."""
    mask, x = dense_input(tile, channels)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = op(sparsify(a, mask, engine)).to_dense()
    want = op(b * 1)  # not the leaf itself, which an in-place op may not change
    want = want * mask.at(tuple(want.shape[-2:]))[:, None]
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    weights = torch.randn(want.shape, dtype=torch.double)
    grads_got = torch.autograd.grad((got * weights).sum(), [a, *params])
    grads_want = torch.autograd.grad((want * weights).sum(), [b, *params])
    visible = mask.at(tuple(x.shape[-2:]))[:, None]
    torch.testing.assert_close(grads_got[0], grads_want[0] * visible, rtol=1e-11, atol=1e-11)
    for one, other in zip(grads_got[1:], grads_want[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


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


@pytest.mark.parametrize('method', ['halo', 'columns', 'taps'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('tile', [2, 4, 8])
def test_every_way_to_convolve_gives_the_same(tile: int, stride: int, method: str) -> None:
    mask, x = dense_input(tile)
    window = Window.of(3, stride, 1)
    back = method if method != 'halo' or stride == 1 else 'columns'
    plan = ConvPlan(mask, (tile, tile), window, method, back, method)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.double, requires_grad=True)
    bias = torch.randn(5, dtype=torch.double, requires_grad=True)
    source = x.clone().requires_grad_()
    rows = sparsify(source, mask).rows
    got = conv_rows(rows, weight, bias, plan)
    dense = source.clone()
    want = F.conv2d(dense, weight, bias, stride, 1)
    want = want.permute(0, 2, 3, 1).reshape(-1, 5)[mask.positions(plan.out_tile)]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad(got, (source, weight, bias), g, retain_graph=True),
        torch.autograd.grad(want, (source, weight, bias), g),
        strict=True,
    ):
        visible = mask.at(tuple(x.shape[-2:]))[:, None] if one.shape == x.shape else 1
        torch.testing.assert_close(one, other * visible, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('tile', [2, 4])
def test_pooling(engine: str, tile: int) -> None:
    for op in (
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 2),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    ):
        compare(engine, tile, op)


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
