"""Convolution of the rows of visible tiles, exact, without touching hidden positions.

Three ways to compute the same numbers, each the fastest somewhere. ``halo``: gather each tile
with its border and run torch's convolution on the batch of tiles. ``columns``: gather the taps
of every output into one matrix and multiply. ``taps``: multiply once per tap, only where the
tap falls on a visible position. None saves gathered copies for the backward pass: they are
gathered again from the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair
from .feature_map import at_least_float32
from .products import multiply, multiply_transposed, rows_of
from .window import Window, halo_rows, reader_rows, tap_rows


@dataclass(frozen=True)
class ConvPlan:
    """Where a convolution takes place and how each of its three products is computed.

    Attributes:
        mask: the visible cells.
        tile: tile of the input map, (th, tw); it has R = N * th * tw rows.
        window: the kernel.
        forward: 'halo' | 'columns' | 'taps'.
        grad_input: 'halo' (stride 1 only) | 'columns' | 'taps'.
        grad_weight: 'halo' | 'columns' | 'taps'.
    """

    mask: CellMask
    tile: Pair
    window: Window
    forward: str
    grad_input: str
    grad_weight: str

    @property
    def out_tile(self) -> Pair:
        """Tile of the output map."""
        return self.window.out_tile(self.mask, self.tile)


def conv_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, plan: ConvPlan) -> Tensor:
    """Ungrouped convolution of a map held as rows.

    Args:
        rows: (R, C) visible positions.
        weight: (Co, C, kh, kw) as torch's Conv2d holds it.
        bias: (Co,) or None.
        plan: geometry and methods.

    Returns:
        (R', Co) visible positions of the output.
    """
    out = _ConvRows.apply(rows, weight, plan)
    return out if bias is None else out + bias


def pad_zero_row(rows: Tensor) -> Tensor:
    """(R + 1, C): a zero row at the end, which indices of hidden positions point to."""
    out = rows.new_empty(rows.shape[0] + 1, rows.shape[1])
    out[:-1] = rows
    out[-1] = 0
    return out


def gather_halo(rows: Tensor, mask: CellMask, tile: Pair, window: Window) -> Tensor:
    """(N, C, wh, ww) channels-last tiles with their border; hidden and outside are zero."""
    index = halo_rows(mask, tile, window)
    flat = mask.table(('halo_flat', tile, window), lambda: index.flatten().clamp(max=rows.shape[0]))
    tiles = pad_zero_row(rows).index_select(0, flat)
    return tiles.view(*index.shape, -1).permute(0, 3, 1, 2)


def rows_to_tiles(rows: Tensor, tile: Pair) -> Tensor:
    """(N, C, th, tw) channels-last view of (R, C) rows."""
    return rows.view(-1, *tile, rows.shape[1]).permute(0, 3, 1, 2)


class _ConvRows(torch.autograd.Function):
    """Chooses the method of each product; saves only the input and the weight."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.plan = plan
        return _FORWARD[plan.forward](rows, weight, plan)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        plan: ConvPlan = ctx.plan
        grad = grad.contiguous()
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = _GRAD_INPUT[plan.grad_input](grad, weight, plan)
        if ctx.needs_input_grad[1]:
            grad_weight = _GRAD_WEIGHT[plan.grad_weight](grad, rows, weight, plan)
        return grad_rows, grad_weight, None


# halo --------------------------------------------------------------------------------------


def _halo_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    tiles = gather_halo(rows, plan.mask, plan.tile, plan.window)
    out = F.conv2d(tiles, weight, None, plan.window.stride, 0, plan.window.dilation)
    return rows_of(out)


def _mirrored(window: Window) -> Window:
    """The window that carries gradients back through one of stride 1."""
    before, after = (
        tuple(s - 1 - p for s, p in zip(window.span, side, strict=True))
        for side in (window.padding, window.behind)
    )
    return Window(window.kernel, (1, 1), before, window.dilation, trailing=after)


def _halo_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    window = _mirrored(plan.window)
    tiles = gather_halo(grad, plan.mask, plan.out_tile, window)
    mirrored = weight.flip(2, 3).transpose(0, 1)
    return rows_of(F.conv2d(tiles, mirrored, None, 1, 0, window.dilation))


def _halo_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    tiles = gather_halo(rows, plan.mask, plan.tile, plan.window)
    grad_tiles = rows_to_tiles(grad, plan.out_tile)
    return torch.ops.aten.convolution_backward(
        grad_tiles,
        tiles,
        weight,
        None,
        plan.window.stride,
        (0, 0),
        plan.window.dilation,
        False,
        (0, 0),
        1,
        (False, True, False),
    )[1]


# columns -----------------------------------------------------------------------------------


def _columns(rows: Tensor, plan: ConvPlan) -> Tensor:
    """(R', kh * kw * C): the taps of every output side by side."""
    index = plan.mask.table(
        ('tap_flat', plan.tile, plan.window),
        lambda: tap_rows(plan.mask, plan.tile, plan.window).flatten().clamp(max=rows.shape[0]),
    )
    return pad_zero_row(rows).index_select(0, index).view(-1, plan.window.taps * rows.shape[1])


def _columns_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    matrix = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
    return multiply(_columns(rows, plan), matrix.t())


def _columns_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    (sh, sw), (th, tw) = plan.window.stride, plan.tile
    padded, by_tap = pad_zero_row(grad), weight.flatten(2)
    out = grad.new_empty(plan.mask.num_visible, th, tw, weight.shape[1])
    for phase in ((i, j) for i in range(sh) for j in range(sw)):
        index, taps = reader_rows(plan.mask, plan.tile, plan.window, phase)
        part = out[:, phase[0] :: sh, phase[1] :: sw]
        if not taps:
            part.zero_()
            continue
        gathered = padded.index_select(0, index).view(-1, len(taps) * grad.shape[1])
        matrix = by_tap[:, :, taps].permute(2, 0, 1).reshape(-1, weight.shape[1])
        part.copy_(multiply(gathered, matrix).view(part.shape))
    return out.view(-1, weight.shape[1])


def _columns_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    co, c, kh, kw = weight.shape
    product = multiply_transposed(grad, _columns(rows, plan))
    return product.view(co, kh, kw, c).permute(0, 3, 1, 2)


# taps --------------------------------------------------------------------------------------


def _pairs(plan: ConvPlan) -> list[tuple[Tensor, Tensor] | None]:
    """For each tap, the outputs that read a visible position through it, and that position.

    None for the tap through which every position reads itself.
    """

    def build() -> list[tuple[Tensor, Tensor] | None]:
        index = tap_rows(plan.mask, plan.tile, plan.window)
        rows = plan.mask.num_visible * plan.tile[0] * plan.tile[1]
        pairs: list[tuple[Tensor, Tensor] | None] = []
        for tap in range(index.shape[1]):
            if tap == plan.window.own_tap:
                pairs.append(None)
                continue
            outputs = (index[:, tap] < rows).nonzero().flatten()
            pairs.append((outputs, index[:, tap].index_select(0, outputs)))
        return pairs

    return plan.mask.table(('pairs', plan.tile, plan.window), build)


def _by_tap(weight: Tensor) -> Tensor:
    """(kh * kw, Co, C), each matrix as a product wants it: rows or columns contiguous."""
    by_tap = weight.permute(2, 3, 0, 1).flatten(0, 1)
    return by_tap if by_tap.stride(2) == 1 else by_tap.contiguous()


def _add_up(
    read: Tensor, matrices: Tensor, pairs: list[tuple[Tensor, Tensor] | None], rows: int
) -> Tensor:
    """(rows, C'): for each tap ``read`` times its matrix, added where its pairs (to, from) say.

    Added up, as in a dense convolution, in float32 for half types.
    """
    dtype = at_least_float32(read.dtype)
    if None in pairs:
        out = (read @ matrices[pairs.index(None)]).to(dtype)
    else:
        out = read.new_zeros(rows, matrices.shape[2], dtype=dtype)
    for matrix, pair in zip(matrices, pairs, strict=True):
        if pair is not None and len(pair[0]):
            out.index_add_(0, pair[0], (read.index_select(0, pair[1]) @ matrix).to(dtype))
    return out.to(read.dtype)


def _taps_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    th, tw = plan.out_tile
    return _add_up(rows, _by_tap(weight).mT, _pairs(plan), plan.mask.num_visible * th * tw)


def _taps_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    th, tw = plan.tile
    back = [None if pair is None else pair[::-1] for pair in _pairs(plan)]
    return _add_up(grad, _by_tap(weight), back, plan.mask.num_visible * th * tw)


def _taps_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    co, c, kh, kw = weight.shape
    out = grad.new_zeros(kh * kw, co, c)
    for product, pair in zip(out, _pairs(plan), strict=True):
        if pair is None:
            torch.mm(grad.t(), rows, out=product)
        elif len(pair[0]):
            outputs, inputs = pair
            read = rows.index_select(0, inputs)
            torch.mm(grad.index_select(0, outputs).t(), read, out=product)
    return out.view(kh, kw, co, c).permute(2, 3, 0, 1)


_FORWARD = {'halo': _halo_forward, 'columns': _columns_forward, 'taps': _taps_forward}
_GRAD_INPUT = {
    'halo': _halo_grad_input,
    'columns': _columns_grad_input,
    'taps': _taps_grad_input,
}
_GRAD_WEIGHT = {
    'halo': _halo_grad_weight,
    'columns': _columns_grad_weight,
    'taps': _taps_grad_weight,
}
