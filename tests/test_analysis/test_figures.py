"""Pictures of attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hgkd_mm.analysis import LayerAttention, TokenLayout
from hgkd_mm.analysis.figures import draw_curves, draw_maps, paint_maps


def test_the_brightest_cell_is_that_of_the_weight_and_the_query_is_framed() -> None:
    pictures = np.full((2, 32, 48, 3), 100, np.uint8)
    weights = np.full((2, 2, 3), 0.01)
    weights[0, 1, 2] = weights[1, 0, 0] = 0.9
    painted = paint_maps(pictures, weights, 1)
    cells = painted.reshape(2, 2, 16, 3, 16, 3)[:, :, 4:12, :, 4:12].mean((2, 4, 5))
    assert np.unravel_index(cells[0].argmax(), (2, 3)) == (1, 2)
    assert np.unravel_index(cells[1].argmax(), (2, 3)) == (0, 0)
    framed = (painted == (0, 255, 255)).all(3)
    assert framed[0, 0, 16:32].all() and framed[0, :16, 16].all() and framed[0, 15, 31]
    # one pixel wide around 16 x 16
    assert framed.sum((1, 2)).tolist() == [60, 60]
    assert not (paint_maps(pictures, weights, -1) == (0, 255, 255)).all(3).any()


def test_grids_that_do_not_divide_the_image() -> None:
    painted = paint_maps(np.zeros((1, 37, 50, 3), np.uint8), np.eye(3)[None], 4)
    assert painted.shape == (1, 37, 50, 3)


def test_files_are_written(tmp_path: Path) -> None:
    layers = [
        LayerAttention(block=index, distance=(10.0, 20.0 + index), nmi=(0.1, 0.2))
        for index in range(3)
    ]
    path = draw_curves(layers, tmp_path / 'new' / 'layers.png', title='x' * 300, uniform=40.0)
    width, height = Image.open(path).size
    assert width > 2 * height and np.asarray(Image.open(path)).std() > 5
    layout = TokenLayout(grid=(2, 3), prefix=1, stride=16)
    maps = {0: torch.rand(2, 2, 2, 3).double(), 5: torch.rand(2, 2, 2, 3).double()}
    pictures = np.zeros((2, 32, 48, 3), np.uint8)
    queries = {'cls': 0, '1,1': 5}
    path = draw_maps(pictures, maps, queries, layout, tmp_path / 'maps.png', title='maps')
    assert Image.open(path).width > 5 * 1.5 * 130
