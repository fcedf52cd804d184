"""Sliding windows over tiles: which row every tap of a kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair


def pair(value: int | tuple[int, ...]) -> Pair:
    """(v, v) for a number, the two numbers for a pair, as torch's own layers read them."""
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


@dataclass(frozen=True)
class Window:
    """A kernel of a convolution or a pooling, each field as (vertical, horizontal).

    Attributes:
        kernel: taps.
        stride: positions from one output to the next.
        padding: positions added before the first one.
        dilation: positions from one tap to the next.
        ceil_mode: whether a window may run over the edge, as torch's poolings allow.
        trailing: positions added after the last one; as many as before if None.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    trailing: Pair | None = None

    @classmethod
    def of(
        cls,
        kernel: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        padding: int | str | tuple[int, ...],
        dilation: int | tuple[int, ...] = 1,
        ceil_mode: bool = False,
    ) -> Window:
        """Reads the arguments of torch's convolutions and poolings ('same' and 'valid' too)."""
        kernel, dilation = pair(kernel), pair(dilation)
        trailing = None
        if padding == 'valid':
            padding = 0
        elif padding == 'same':
            reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
            padding = tuple(r // 2 for r in reach)
            if any(r % 2 for r in reach):  # torch puts the odd one behind
                trailing = tuple(r - p for r, p in zip(reach, padding, strict=True))
        return cls(kernel, pair(stride), pair(padding), dilation, ceil_mode, trailing)

    def padded(self, before: Pair, after: Pair) -> Window:
        """The same window over a map that was padded with so many zeros before it."""
        behind = tuple(p + a for p, a in zip(self.behind, after, strict=True))
        padding = tuple(p + b for p, b in zip(self.padding, before, strict=True))
        return replace(self, padding=padding, trailing=None if behind == padding else behind)

    @property
    def behind(self) -> Pair:
        """Positions added after the last one."""
        return self.padding if self.trailing is None else self.trailing

    def on_dense(
        self, data: Tensor, value: float = 0.0, *, own: float = 0.0, pools: bool = False
    ) -> tuple[Tensor, Pair]:
        """A dense map and the padding that torch's op shall add to it.

        Padded here if torch's op could not: unevenly, with another value than its ``own``, or,
        where it ``pools``, by more than half the kernel.
        """
        wide = pools and any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True))
        if self.trailing is None and value == own and not wide:
            return data, self.padding
        (top, left), (bottom, right) = self.padding, self.behind
        return F.pad(data, (left, right, top, bottom), value=value), (0, 0)

    def cut(self, data: Tensor, mask: CellMask, tile: Pair) -> Tensor:
        """What ``on_dense`` gave, or its gradient, without the padding that it added."""
        height, width = mask.grid[0] * tile[0], mask.grid[1] * tile[1]
        if data.shape[2:] == (height, width):
            return data
        top, left = self.padding
        return data[:, :, top : top + height, left : left + width]

    @property
    def taps(self) -> int:
        """Number of taps, kh * kw."""
        return self.kernel[0] * self.kernel[1]

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

    def out_tile(self, mask: CellMask, tile: Pair) -> Pair:
        """Tile of the output map.

        Raises:
            ValueError: the stride does not divide the tile, or the output is not
                ``1 / stride`` of the input, so that cells would no longer be whole tiles.
        """
        (th, tw), (sh, sw), (gh, gw) = tile, self.stride, mask.grid
        if th % sh or tw % sw:
            raise ValueError(
                f'Stride {self.stride} does not divide the {th} x {tw} positions that one mask '
                f'cell has left on this map: use cells of at least {sh} times the stride reached '
                'here (config key mask.cell), or a network of smaller total stride.'
            )
        out = self.out_size((gh * th, gw * tw))
        want = (gh * th // sh, gw * tw // sw)
        if out != want:
            raise ValueError(
                f'A window of kernel {self.kernel}, stride {self.stride}, padding {self.padding} '
                f'(behind: {self.behind}), dilation {self.dilation} turns {gh * th} x {gw * tw} '
                f'positions into {out[0]} x {out[1]}; the mask cells stay whole only at '
                f'{want[0]} x {want[1]}. '
                'Pad by half the kernel.'
            )
        return th // sh, tw // sw

    def reach(self, mask: CellMask, tile: Pair) -> Pair:
        """Size of what the outputs of one tile read, the tile with its border."""
        out = self.out_tile(mask, tile)
        (sh, sw), (height, width) = self.stride, self.span
        return (out[0] - 1) * sh + height, (out[1] - 1) * sw + width

    def is_pointwise(self) -> bool:
        """True for a 1 x 1 kernel without padding."""
        return self.kernel == (1, 1) and self.padding == self.behind == (0, 0)


class Offsets(NamedTuple):
    """Positions on one axis, relative to the corner of a tile; they may lie in other tiles.

    Attributes:
        values: (n,) long, on the mask's device.
        low, high: the smallest and the largest of them, known without asking the device.
    """

    values: Tensor
    low: int
    high: int


def neighbour_rows(
    mask: CellMask, tile: Pair, ys: Offsets, xs: Offsets, *, outside: bool = False
) -> Tensor:
    """Rows at positions relative to the upper left corner of every visible cell.

    Args:
        mask: the cells.
        tile: (th, tw) positions of a cell on this map; the map has R = N * th * tw rows.
        ys: ny vertical offsets.
        xs: nx horizontal offsets.
        outside: tell positions outside the image from hidden ones.

    Returns:
        (N, ny, nx) int32: the row, or R where the position is hidden or, unless ``outside``
            tells them apart by R + 1, where it lies outside the image.
    """
    (th, tw), area = tile, tile[0] * tile[1]
    rows = mask.num_visible * area
    dy = torch.div(ys.values, th, rounding_mode='floor')
    dx = torch.div(xs.values, tw, rounding_mode='floor')
    ring = max(-(ys.low // th), ys.high // th, -(xs.low // tw), xs.high // tw, 0)
    inside = (ys.values - dy * th).view(-1, 1) * tw + (xs.values - dx * tw)
    image, row, column = (c.view(-1, 1, 1) for c in mask.cells())
    span = torch.arange(2 * ring + 1, device=mask.device)
    # Hidden cells start at R, and those outside one tile later.
    starts = mask.cell_number(ring)[image, row + span.view(-1, 1), column + span] * area
    found = starts.index_select(1, dy + ring).index_select(2, dx + ring)
    found += inside.int()
    if not outside:
        return found.clamp_(max=rows)
    return torch.where(found < rows, found, (found >= rows + area).int() + rows)


def consecutive(mask: CellMask, first: int, count: int) -> Offsets:
    """``count`` offsets from ``first`` on."""
    values = torch.arange(first, first + count, device=mask.device)
    return Offsets(values, first, first + count - 1)


def _tap_offsets(mask: CellMask, window: Window, tile_out: Pair, axis: int) -> Offsets:
    """(t * k,): offsets read by each output of a tile, for each tap, on one axis."""
    stride, kernel, dilation = window.stride[axis], window.kernel[axis], window.dilation[axis]
    first, device = -window.padding[axis], mask.device
    starts = torch.arange(tile_out[axis], device=device).view(-1, 1) * stride + first
    values = (starts + torch.arange(kernel, device=device) * dilation).flatten()
    last = first + (tile_out[axis] - 1) * stride + (kernel - 1) * dilation
    return Offsets(values, first, last)


def tap_rows(mask: CellMask, tile: Pair, window: Window) -> Tensor:
    """(R', kh * kw) int32: the row that each tap of each output reads, R where hidden."""

    def build() -> Tensor:
        out = window.out_tile(mask, tile)
        kh, kw = window.kernel
        ys, xs = (_tap_offsets(mask, window, out, axis) for axis in (0, 1))
        rows = neighbour_rows(mask, tile, ys, xs)
        rows = rows.view(-1, out[0], kh, out[1], kw).transpose(2, 3)
        return rows.reshape(-1, kh * kw).contiguous()

    return mask.table(('tap_rows', tile, window), build)


def halo_rows(mask: CellMask, tile: Pair, window: Window) -> Tensor:
    """(N, wh, ww) int32: the tile of each cell with the border that the window reaches.

    R where the position is hidden, R + 1 where it lies outside the image.
    """

    def build() -> Tensor:
        reach = window.reach(mask, tile)
        ys, xs = (consecutive(mask, -window.padding[a], reach[a]) for a in (0, 1))
        return neighbour_rows(mask, tile, ys, xs, outside=True)

    return mask.table(('halo_rows', tile, window), build)


def reader_rows(
    mask: CellMask, tile: Pair, window: Window, phase: Pair
) -> tuple[Tensor, tuple[slice, slice]]:
    """Who reads me: outputs that see the inputs of one stride phase, and through which tap.

    The transposed view of ``tap_rows``, from which the gradient of the input is gathered
    without any scattered addition. Inputs (i, j) of a tile with ``i % sh, j % sw == phase``
    are seen by the same taps.

    Args:
        mask: the cells.
        tile: tile of the input map.
        window: the kernel.
        phase: (vertical, horizontal) remainder, each below the stride.

    Returns:
        (N * th/sh * tw/sw * taps,) int32 rows of the output map, input by input, R' where there
        is no such output; and where those taps lie in the kernel, vertically and horizontally.
    """

    def build() -> tuple[Tensor, tuple[slice, slice]]:
        out = window.out_tile(mask, tile)
        (ys, ky), (xs, kx) = (_readers(mask, window, tile, phase, axis) for axis in (0, 1))
        at = ky, kx
        taps = tuple(len(range(*k.indices(n))) for k, n in zip(at, window.kernel, strict=True))
        if 0 in taps:
            return torch.empty(0, dtype=torch.int32, device=mask.device), at
        rows = neighbour_rows(mask, out, ys, xs)
        rows = rows.unflatten(2, (-1, taps[1])).unflatten(1, (-1, taps[0]))
        return rows.transpose(2, 3).flatten(), at

    return mask.table(('reader_rows', tile, window, phase), build)


def _readers(
    mask: CellMask, window: Window, tile: Pair, phase: Pair, axis: int
) -> tuple[Offsets, slice]:
    """On one axis, the outputs that read the inputs of a phase, and through which taps."""
    s, p, d = window.stride[axis], window.padding[axis], window.dilation[axis]
    taps = [t for t in range(window.kernel[axis]) if (phase[axis] + p - t * d) % s == 0]
    if not taps:
        return Offsets(torch.empty(0, dtype=torch.long, device=mask.device), 0, 0), slice(0, 0)
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    inputs = torch.arange(phase[axis], tile[axis], s, device=mask.device).view(-1, 1)
    reads = torch.arange(taps[0], taps[-1] + 1, step, device=mask.device) * d
    values = torch.div(inputs + p - reads, s, rounding_mode='floor').flatten()
    last = phase[axis] + (len(inputs) - 1) * s
    low, high = (phase[axis] + p - taps[-1] * d) // s, (last + p - taps[0] * d) // s
    return Offsets(values, low, high), slice(taps[0], taps[-1] + 1, step)
