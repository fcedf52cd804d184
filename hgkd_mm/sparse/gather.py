"""Tiles of a map held as rows, alone or with their surroundings."""

from __future__ import annotations

from torch import Tensor

from .cell_mask import CellMask, Pair
from .window import Window, consecutive, halo_rows, neighbour_rows


def rows_to_tiles(rows: Tensor, tile: Pair) -> Tensor:
    """(N, C, th, tw) channels-last view of (R, C) rows."""
    return rows.view(-1, *tile, rows.shape[1]).permute(0, 3, 1, 2)


def pad_zero_row(rows: Tensor) -> Tensor:
    """(R + 1, C): a zero row at the end, which indices of hidden positions point to."""
    out = rows.new_empty(rows.shape[0] + 1, rows.shape[1])
    out[:-1] = rows
    out[-1] = 0
    return out


def gather_halo(rows: Tensor, mask: CellMask, tile: Pair, window: Window) -> Tensor:
    """(N, C, wh, ww) channels-last tiles with the border that the window reaches.

    Hidden positions and those outside the image are zero.
    """
    index = halo_rows(mask, tile, window)
    tiles = pad_zero_row(rows).index_select(0, index.view(-1))
    return tiles.view(*index.shape, -1).permute(0, 3, 1, 2)


def gather_tiles(rows: Tensor, mask: CellMask, tile: Pair, first: Pair, count: Pair) -> Tensor:
    """(N, C, count) channels-last: positions from ``first``, relative to each tile's corner."""

    def build() -> Tensor:
        ys, xs = (consecutive(mask, f, n) for f, n in zip(first, count, strict=True))
        return neighbour_rows(mask, tile, ys, xs).flatten()

    flat = mask.table(('tiles', tile, first, count), build)
    tiles = pad_zero_row(rows).index_select(0, flat)
    return tiles.view(-1, *count, rows.shape[1]).permute(0, 3, 1, 2)
