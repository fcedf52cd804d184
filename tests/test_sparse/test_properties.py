"""Windows of any geometry over masks of any pattern, by hypothesis, against the dense op."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import compare
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hgkd_mm.sparse import ENGINES, CellMask, SparseFeatureMap, sparsify
from hgkd_mm.sparse.conv import METHODS, Conv, conv_rows
from hgkd_mm.sparse.tiles import TileMap
from hgkd_mm.sparse.window import Geometry, Window

# Derandomised: the same cases in every run.
PROPERTY = settings(max_examples=80, deadline=None, derandomize=True)
tiles = st.integers(1, 3)  # how much larger than drawn: up to 24


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """(B, gh, gw) bool with something visible; many images show nothing, all, or one cell."""
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    cells = grid[0] * grid[1]
    image = st.one_of(
        st.sampled_from([[True] * cells, [False] * cells]),
        st.integers(0, cells - 1).map(lambda one: [i == one for i in range(cells)]),
        st.lists(st.booleans(), min_size=cells, max_size=cells),
    )
    images = draw(st.lists(image, min_size=1, max_size=3))
    visible = torch.tensor(images).view(-1, *grid)
    return visible if visible.any() else ~visible


@st.composite
def axes(draw: st.DrawFn, dilations: int = 2) -> dict[str, int]:
    """One axis of a window that keeps the cells whole: kernel, stride, dilation, padding."""
    kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, dilations))
    stride = draw(st.integers(1, 2))
    span = (kernel - 1) * dilation + 1
    # Outputs are length / stride exactly if the padding sums up to this, or a little less.
    total = draw(st.integers(max(span - stride, 0), span - 1))
    before = draw(st.integers(0, total))
    return dict(
        kernel=kernel, stride=stride, dilation=dilation, before=before, after=total - before
    )


@st.composite
def cases(draw: st.DrawFn, dilations: int = 2) -> dict:
    """A mask, the tile of its cells, and a window."""
    vertical, horizontal = draw(axes(dilations)), draw(axes(dilations))
    tile = tuple(
        axis['stride'] * draw(st.sampled_from([1, 2, 3, 4])) for axis in (vertical, horizontal)
    )
    return dict(visible=draw(masks()), tile=tile, axes=(vertical, horizontal))


def _compare(
    case: dict,
    op,
    channels: int,
    parameters: list[Tensor],
    engines: Sequence[str] = tuple(ENGINES),
    mask: CellMask | None = None,
) -> None:
    """``op(map, pad)`` on the engines against the dense op on zeros, and all gradients."""
    mask = mask or CellMask(case['visible'])
    size = tuple(g * t for g, t in zip(mask.grid, case['tile'], strict=True))
    visible = mask.at(size)[:, None]
    torch.manual_seed(0)
    x = torch.randn(mask.batch, channels, *size, dtype=torch.double)
    dense = x.clone().requires_grad_()
    want = op(torch.where(visible, dense, 0))
    want = want * mask.at(tuple(want.shape[-2:]))[:, None]
    weights = torch.randn_like(want)
    want_grads = torch.autograd.grad((want * weights).sum(), [dense, *parameters])
    for engine in engines:
        leaf = x.clone().requires_grad_()
        got = op(sparsify(leaf, mask, engine)).to_dense()
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)
        grads = torch.autograd.grad((got * weights).sum(), [leaf, *parameters])
        for one, other in zip(grads, want_grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def _pad(x: Tensor, case: dict, value: float = 0.0) -> Tensor:
    vertical, horizontal = case['axes']
    sizes = (horizontal['before'], horizontal['after'], vertical['before'], vertical['after'])
    return F.pad(x, sizes, value=value)


def _arguments(case: dict, *names: str) -> dict[str, tuple[int, int]]:
    return {name: tuple(axis[name] for axis in case['axes']) for name in names}


@PROPERTY
@given(cases(), st.sampled_from([(4, 6, 1), (4, 4, 4), (4, 8, 2)]), st.booleans(), tiles)
def test_convolution(case: dict, widths: tuple, bias: bool, times: int) -> None:
    channels, out, groups = widths
    kernel, stride, dilation = _arguments(case, 'kernel', 'stride', 'dilation').values()
    torch.manual_seed(1)
    conv = nn.Conv2d(channels, out, kernel, stride, 0, dilation, groups, bias, dtype=torch.double)
    case |= {'tile': tuple(times * t for t in case['tile'])}
    _compare(case, lambda x: conv(_pad(x, case)), channels, list(conv.parameters()))


@PROPERTY
@given(cases(), st.sampled_from(list(METHODS)), st.sampled_from([1, 2, 4]), tiles)
def test_every_method_for_every_window(case: dict, method: str, groups: int, times: int) -> None:
    """Also those that ``choose_method`` would not take here, and tiles up to 24."""
    groups = groups if method in ('halo', 'canvas') else 1
    (kh, kw), stride, dilation = _arguments(case, 'kernel', 'stride', 'dilation').values()
    mask, tile = CellMask(case['visible']), tuple(times * t for t in case['tile'])
    before, after = (tuple(axis[side] for axis in case['axes']) for side in ('before', 'after'))
    window = Window((kh, kw), stride, before, after, dilation)
    geometry = Geometry.of(window, tile, mask.grid)
    conv = Conv(mask, geometry, groups)
    torch.manual_seed(2)
    weight = torch.randn(8, 4 // groups, kh, kw, dtype=torch.double, requires_grad=True)

    def op(x: Tensor) -> Tensor:
        if isinstance(x, SparseFeatureMap):
            rows = conv_rows(x.rows, weight, None, conv, METHODS[method])
            return TileMap(rows, mask, geometry.out_tile, 8)
        return F.conv2d(_pad(x, case), weight, None, stride, 0, dilation, groups)

    _compare({**case, 'tile': tile}, op, 4, [weight], engines=('tiles',), mask=mask)


@PROPERTY
@given(cases(), st.booleans())
def test_max_pooling(case: dict, zeros: bool) -> None:
    sizes = _arguments(case, 'kernel', 'stride', 'dilation')
    value = 0.0 if zeros else -torch.inf
    _compare(
        case,
        lambda x: F.max_pool2d(
            _pad(x, case, value), sizes['kernel'], sizes['stride'], 0, sizes['dilation']
        ),
        3,
        [],
    )


@PROPERTY
@given(cases(dilations=1))
def test_average_pooling(case: dict) -> None:
    sizes = _arguments(case, 'kernel', 'stride')
    _compare(case, lambda x: F.avg_pool2d(_pad(x, case), sizes['kernel'], sizes['stride']), 3, [])


@PROPERTY
@given(masks(), st.integers(1, 4), st.integers(1, 3))
def test_rows_and_maps_are_two_forms_of_one_thing(visible: Tensor, th: int, tw: int) -> None:
    mask = CellMask(visible)
    size = (mask.grid[0] * th, mask.grid[1] * tw)
    x = torch.randn(mask.batch, 2, *size)
    for engine in ENGINES:
        y = sparsify(x, mask, engine)
        assert torch.equal(y.to_dense(), torch.where(mask.at(size)[:, None], x, 0))
        assert torch.equal(y.with_rows(y.rows).to_dense(), y.to_dense())
        assert y.rows.shape == (mask.num_visible * th * tw, 2)


@pytest.mark.parametrize('engine', [*ENGINES, 'tiles as on a GPU'])
@pytest.mark.parametrize('tile', [2, 4])
def test_pooling(engine: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine not in ENGINES:
        monkeypatch.setattr('hgkd_mm.sparse.tiles.full_map_pays', lambda device: True)
        engine = 'tiles'
    for op in (
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 2),
        nn.MaxPool2d(3, 1, 1),
        # Padded by hand, as networks that came from TensorFlow do: with zeros, or with -inf.
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    ):
        compare(engine, tile, op)


@pytest.mark.parametrize('engine', ENGINES)
def test_autocast_leaves_double_precision_alone_and_same_padding_is_torchs(engine: str) -> None:
    conv = nn.Conv2d(4, 4, 2, 1, 'same', dtype=torch.double)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        compare(engine, 4, conv, params=tuple(conv.parameters()))


def test_threads_share_a_network_and_a_mask() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)).double()
    mask = CellMask.random(batch=4, grid=(4, 4), mask_ratio=0.5)
    batches = [torch.randn(4, 3, 32, 32, dtype=torch.double) for _ in range(4)]
    alone = [network(sparsify(x, mask)).to_dense() for x in batches]
    shared = CellMask(mask.visible)  # with no tables yet, which the threads make together
    results: dict[int, Tensor] = {}

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = network(sparsify(batches[i], shared)).to_dense()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, want in enumerate(alone):
        assert torch.equal(results[i], want)
