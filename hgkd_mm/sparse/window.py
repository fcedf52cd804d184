"""Sliding windows over tiles: their geometry, and tables of the rows that they read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair, cached_table


def pair(value: int | Sequence[int]) -> Pair:
    """(v, v) for a number, the two numbers for a pair, as torch's own layers read them."""
    if isinstance(value, int):
        return value, value
    return value[0], value[-1]


class Window(NamedTuple):
    """A kernel of a convolution or a pooling, each field as (vertical, horizontal).

    Attributes:
        kernel: taps.
        stride: positions from one output to the next.
        padding: positions added before the first one.
        behind: positions added after the last one.
        dilation: positions from one tap to the next.
        ceil_mode: whether a window may run over the edge, as torch's poolings allow.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    behind: Pair
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @classmethod
    def of(
        cls,
        kernel: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | str | Sequence[int],
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> Window:
        """Reads the arguments of torch's convolutions and poolings ('same' and 'valid' too)."""
        kernel, dilation = pair(kernel), pair(dilation)
        before = behind = pair(0 if isinstance(padding, str) else padding)
        if padding == 'same':  # torch puts the odd one behind
            total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            before = total[0] // 2, total[1] // 2
            behind = total[0] - before[0], total[1] - before[1]
        return cls(kernel, pair(stride), before, behind, dilation, ceil_mode)

    def padded(self, before: Pair, after: Pair) -> Window:
        """The window on the map inside, for one on a map that was padded by hand."""
        return self._replace(
            padding=(self.padding[0] + before[0], self.padding[1] + before[1]),
            behind=(self.behind[0] + after[0], self.behind[1] + after[1]),
        )

    def on_dense(
        self, data: Tensor, value: float = 0.0, *, own: float = 0.0, pools: bool = False
    ) -> tuple[Tensor, Pair]:
        """A dense map, and the padding that is left to torch's op.

        The map is padded here where torch's op cannot do it: unevenly, with another value than
        its ``own``, or, for poolings (``pools``), by more than half the kernel.
        """
        wide = pools and any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True))
        if self.padding == self.behind and value == own and not wide:
            return data, self.padding
        (top, left), (bottom, right) = self.padding, self.behind
        return F.pad(data, (left, right, top, bottom), value=value), (0, 0)

    def cut(self, data: Tensor, size: Pair) -> Tensor:
        """The (H, W) part of a map or gradient of it without the padding of ``on_dense``."""
        if data.shape[2:] == size:
            return data
        (top, left), (height, width) = self.padding, size
        return data[:, :, top : top + height, left : left + width]

    @property
    def own_tap(self) -> int | None:
        """The tap through which every output reads its own position, if there is one."""
        at = tuple(p // d for p, d in zip(self.padding, self.dilation, strict=True))
        own = self.stride == (1, 1) and all(
            a * d == p and a < k
            for a, d, p, k in zip(at, self.dilation, self.padding, self.kernel, strict=True)
        )
        return at[0] * self.kernel[1] + at[1] if own else None

    @property
    def span(self) -> Pair:
        """Positions from the first to the last tap."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def out_size(self, size: Pair) -> Pair:
        """Size of the dense output for an input of ``size``."""
        sizes = []
        for length, span, s, p, q in zip(
            size, self.span, self.stride, self.padding, self.behind, strict=True
        ):
            free = length + p + q - span
            steps = -(-free // s) if self.ceil_mode else free // s
            if self.ceil_mode and steps * s >= length + p:
                steps -= 1
            sizes.append(steps + 1)
        return sizes[0], sizes[1]

    def is_pointwise(self) -> bool:
        """Whether this is a 1 x 1 kernel without padding."""
        return self.kernel == (1, 1) and self.padding == self.behind == (0, 0)


class Geometry(NamedTuple):
    """A window on a map of cells, checked once and read by every op, method and table.

    Attributes:
        window: the kernel.
        tile: (th, tw) positions of a cell on the input map, which has R = N * th * tw rows.
        out_tile: those of the output map, which has R' rows.
        reach: size of what the outputs of one tile read, the tile with its border.
    """

    window: Window
    tile: Pair
    out_tile: Pair
    reach: Pair

    @classmethod
    @functools.lru_cache(maxsize=1024)  # the same ones at every step of a network
    def of(cls, window: Window, tile: Pair, grid: Pair) -> Geometry:
        """The geometry of a window on a map of ``grid`` cells of ``tile`` positions.

        Raises:
            ValueError: the stride does not divide the tile, or the output is not
                ``1 / stride`` of the input, so that cells would no longer be whole tiles.
        """
        (th, tw), (sh, sw), (gh, gw) = tile, window.stride, grid
        if th % sh or tw % sw:
            raise ValueError(
                f'Stride {window.stride} does not divide the {th} x {tw} positions of one mask '
                f'cell on this map: use cells of at least {sh} times the stride reached here '
                '(config key mask.cell), or a network of smaller total stride.'
            )
        out = window.out_size((gh * th, gw * tw))
        expected = (gh * th // sh, gw * tw // sw)
        if out != expected:
            raise ValueError(
                f'A window of kernel {window.kernel}, stride {window.stride}, padding '
                f'{window.padding} (behind: {window.behind}), dilation {window.dilation} turns '
                f'{gh * th} x {gw * tw} positions into {out[0]} x {out[1]}; the mask cells stay '
                f'whole only at {expected[0]} x {expected[1]}. Pad by half the kernel.'
            )
        (height, width), out_tile = window.span, (th // sh, tw // sw)
        reach = (out_tile[0] - 1) * sh + height, (out_tile[1] - 1) * sw + width
        return cls(window, tile, out_tile, reach)


def neighbor_rows(mask: CellMask, tile: Pair, ys: Sequence[int], xs: Sequence[int]) -> Tensor:
    """Rows at positions relative to the upper left corner of every visible cell.

    Args:
        mask: the cells.
        tile: (th, tw) positions of a cell on this map; the map has R = N * th * tw rows.
        ys: ny vertical offsets, which may lie in other cells.
        xs: nx horizontal offsets.

    Returns:
        (N, ny, nx) int32: the row, R where the position is hidden, R + 1 outside the image.
    """
    (th, tw), area = tile, tile[0] * tile[1]
    rows = mask.num_visible * area

    def on_device(values: Sequence[int]) -> Tensor:
        return torch.tensor(values).to(mask.device, non_blocking=True)

    dy, dx = on_device([y // th for y in ys]), on_device([x // tw for x in xs])
    inside = on_device([y % th * tw for y in ys]).view(-1, 1) + on_device([x % tw for x in xs])
    ring = max(-(min(ys) // th), max(ys) // th, -(min(xs) // tw), max(xs) // tw, 0)
    image, row, column = (c.view(-1, 1, 1) for c in mask.cells())
    span = torch.arange(2 * ring + 1, device=mask.device)
    # Hidden cells start at R, and those outside one tile later.
    starts = mask.cell_number(ring)[image, row + span.view(-1, 1), column + span] * area
    found = starts.index_select(1, dy + ring).index_select(2, dx + ring)
    found += inside.int()
    return torch.where(found < rows, found, (found >= rows + area).int() + rows)


@cached_table
def block_rows(mask: CellMask, tile: Pair, first: Pair, count: Pair) -> Tensor:
    """(N, *count) int32: ``neighbor_rows`` at all positions from ``first`` on."""
    ys, xs = (range(f, f + n) for f, n in zip(first, count, strict=True))
    return neighbor_rows(mask, tile, ys, xs)


def halo_rows(mask: CellMask, geometry: Geometry) -> Tensor:
    """(N, *reach) int32: ``block_rows`` of each tile with the border that the window reaches."""
    above, left = geometry.window.padding
    return block_rows(mask, geometry.tile, (-above, -left), geometry.reach)


@cached_table
def tap_rows(mask: CellMask, geometry: Geometry) -> Tensor:
    """(R', kh * kw) int32: the row that each tap of each output reads, as ``neighbor_rows``."""
    window, tile, out_tile = geometry[:3]
    ys, xs = (
        [o * s - p + k * d for o in range(outputs) for k in range(taps)]
        for outputs, taps, s, p, d in zip(
            out_tile, window.kernel, window.stride, window.padding, window.dilation, strict=True
        )
    )
    (kh, kw), rows = window.kernel, neighbor_rows(mask, tile, ys, xs)
    rows = rows.view(-1, out_tile[0], kh, out_tile[1], kw).transpose(2, 3)
    return rows.reshape(-1, kh * kw).contiguous()


@cached_table
def reader_rows(
    mask: CellMask, geometry: Geometry, phase: Pair
) -> tuple[Tensor, tuple[slice, slice]]:
    """Inverse of ``tap_rows``: the outputs that read the inputs of one phase of the stride.

    Inputs (i, j) of a tile with ``i % sh, j % sw == phase`` are read through the same taps.

    Returns:
        (N * th/sh * tw/sw * taps,) int32 rows of the output map, input by input, R' or more where
        there is no such output; and those taps of the kernel, vertically and horizontally.
    """
    (ys, ky), (xs, kx) = (_readers(geometry, phase[axis], axis) for axis in (0, 1))
    if not (ky and kx):
        return torch.empty(0, dtype=torch.int32, device=mask.device), (slice(0), slice(0))
    rows = neighbor_rows(mask, geometry.out_tile, ys, xs)
    rows = rows.unflatten(2, (-1, len(kx))).unflatten(1, (-1, len(ky)))
    taps = tuple(slice(k.start, k.stop, k.step) for k in (ky, kx))
    return rows.transpose(2, 3).flatten(), taps


def _readers(geometry: Geometry, phase: int, axis: int) -> tuple[list[int], range]:
    """On one axis, the outputs that read the inputs of a phase, and through which taps."""
    window = geometry.window
    s, p, d = window.stride[axis], window.padding[axis], window.dilation[axis]
    taps = [t for t in range(window.kernel[axis]) if (phase + p - t * d) % s == 0]
    outputs = [(i + p - t * d) // s for i in range(phase, geometry.tile[axis], s) for t in taps]
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    return outputs, range(taps[0], taps[-1] + 1, step) if taps else range(0)
