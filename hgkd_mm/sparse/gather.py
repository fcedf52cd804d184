"""Tiles of a map held as rows, alone or with their surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


def rows_to_map(rows: Tensor, mask: CellMask, tile: Pair, fill: float | Tensor = 0.0) -> Tensor:
    """(B, C, H, W) channels-last map of the rows, hidden positions filled: number or (1, C)."""
    (gh, gw), (th, tw), channels = mask.grid, tile, rows.shape[1]
    count, width = mask.batch * gh * th * gw, tw * channels
    if isinstance(fill, Tensor):
        filled = fill.repeat(count, tw)
    else:
        filled = rows.new_full((count, width), fill)
    filled.index_copy_(0, mask.tile_rows(th), rows.reshape(-1, width))
    return filled.view(mask.batch, gh * th, gw * tw, channels).permute(0, 3, 1, 2)


def canvas_of(rows: Tensor, mask: CellMask, tile: Pair) -> Tensor:
    """(B, C, H, W) channels-last map, zero where hidden; without a gradient."""
    (gh, gw), (th, tw), channels = mask.grid, tile, rows.shape[1]
    filled = rows.new_zeros(mask.batch * gh * th * gw, tw * channels)
    source = _wide(rows.reshape(-1, tw * channels))
    filled.view(source.dtype).index_copy_(0, mask.tile_rows(th), source)
    return filled.view(mask.batch, gh * th, gw * tw, channels).permute(0, 3, 1, 2)


def empty_map(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A (B, C, H, W) channels-last map whose shape is all that a gradient of it needs."""
    batch, channels, height, width = shape
    return like.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)


def _wide(rows: Tensor) -> Tensor:
    """The same bytes in elements of 16, where they fit: CUDA copies one element per thread."""
    size = rows.element_size()
    fits = all(count * size % 16 == 0 for count in (rows.shape[1], rows.storage_offset()))
    return rows.view(torch.complex128) if fits else rows


def visible_of(image: Tensor, mask: CellMask, tile: Pair) -> Tensor:
    """(R, C) visible positions of a (B, C, H, W) map; without a gradient."""
    channels = image.shape[1]
    flat = image.permute(0, 2, 3, 1).reshape(-1, tile[1] * channels)
    found = flat.index_select(0, mask.tile_rows(tile[0]))
    return torch.ops.aten._unsafe_view(found, (-1, channels))


def map_to_rows(image: Tensor, mask: CellMask, tile: Pair) -> Tensor:
    """(R, C) visible positions of a (B, C, H, W) map."""
    return _Visible.apply(image, mask, tile)


class _Visible(torch.autograd.Function):
    """Its gradient is written, not added up: no position is read twice."""

    @staticmethod
    def forward(ctx, image: Tensor, mask: CellMask, tile: Pair) -> Tensor:
        ctx.mask, ctx.tile = mask, tile
        return visible_of(image, mask, tile)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return canvas_of(grad.contiguous(), ctx.mask, ctx.tile), None, None


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
