"""Tiles of a map held as rows, alone or with their surroundings."""

from __future__ import annotations

from torch import Tensor

from .cell_mask import CellMask, Pair
from .window import Window, consecutive, neighbour_rows


def rows_to_tiles(rows: Tensor, tile: Pair) -> Tensor:
    """(N, C, th, tw) channels-last view of (R, C) rows."""
    return rows.view(-1, *tile, rows.shape[1]).permute(0, 3, 1, 2)


def pad_zero_row(rows: Tensor) -> Tensor:
    """(R + 1, C): a zero row at the end, which indices of hidden positions point to."""
    out = rows.new_empty(rows.shape[0] + 1, rows.shape[1])
    out[:-1] = rows
    out[-1] = 0
    return out


def rows_to_map(rows: Tensor, mask: CellMask, tile: Pair, filled: Tensor) -> Tensor:
    """(B, C, H, W) channels-last map of the rows, written over ``filled``, (B * H * W, C)."""
    (gh, gw), (th, tw) = mask.grid, tile
    filled.index_copy_(0, mask.positions(tile), rows)
    return filled.view(mask.batch, gh * th, gw * tw, -1).permute(0, 3, 1, 2)


def gather_halo(rows: Tensor, mask: CellMask, tile: Pair, window: Window) -> Tensor:
    """(N, C, wh, ww) channels-last tiles with the border that the window reaches.

    Hidden positions and those outside the image are zero.
    """
    above, left = window.padding
    return gather_tiles(rows, mask, tile, (-above, -left), window.reach(mask, tile))


def gather_tiles(rows: Tensor, mask: CellMask, tile: Pair, first: Pair, count: Pair) -> Tensor:
    """(N, C, count) channels-last: positions from ``first``, relative to each tile's corner.

    Hidden positions and those outside the image are zero.
    """

    def build() -> Tensor:
        ys, xs = (consecutive(mask, f, n) for f, n in zip(first, count, strict=True))
        return neighbour_rows(mask, tile, ys, xs).flatten()

    flat = mask.table(('tiles', tile, first, count), build)
    tiles = pad_zero_row(rows).index_select(0, flat)
    return tiles.view(-1, *count, rows.shape[1]).permute(0, 3, 1, 2)
