"""Convolution and pooling against the dense op on zero-filled maps."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, compare, dense_input
from torch import nn

from hgkd_mm.sparse import sparsify

GEOMETRIES = [
    # tile, kernel, stride, padding, dilation, groups
    *((t, 3, s, 1, 1, 1) for t, s in itertools.product((1, 2, 4, 8), (1, 2)) if t >= s),
    *((t, 7, s, 3, 1, 1) for t, s in itertools.product((2, 8), (1, 2))),
    (16, 7, 2, 3, 1, 1),
    (4, 1, 1, 0, 1, 1),
    (4, 1, 2, 0, 1, 1),
    (4, 2, 2, 0, 1, 1),
    (4, 2, 1, 'same', 1, 1),
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
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
        lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 0)), 3, 2),
    ):
        compare(engine, tile, op)


@pytest.mark.parametrize('engine', ENGINES)
def test_autocast_leaves_double_precision_alone(engine: str) -> None:
    mask, x = dense_input(2)
    conv = nn.Conv2d(4, 4, 3, 1, 1, dtype=torch.double)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got, want = conv(sparsify(x, mask, engine)), conv(x)
    assert got.dtype == want.dtype == torch.double
