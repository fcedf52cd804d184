"""Convolution as matrix products of gathered rows, for tiles too small for torch's own.

``columns`` gathers the taps of every output side by side and multiplies once. ``taps``
multiplies once per tap, only where the tap falls on a visible position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .conv_plan import ConvPlan
from .feature_map import at_least_float32
from .gather import pad_zero_row
from .products import multiply, multiply_transposed
from .window import reader_rows, tap_rows

# columns -----------------------------------------------------------------------------------


def _columns(rows: Tensor, plan: ConvPlan) -> Tensor:
    """(R', kh * kw * C): the taps of every output side by side."""
    index = tap_rows(plan.mask, plan.tile, plan.window).view(-1)
    return pad_zero_row(rows).index_select(0, index).view(-1, plan.window.taps * rows.shape[1])


def columns_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R', Co): one product with the taps of every output side by side."""
    matrix = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
    return multiply(_columns(rows, plan), matrix.t())


def columns_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R, C): for each phase of the stride, one product with the outputs that read it."""
    (sh, sw), (th, tw) = plan.window.stride, plan.tile
    padded = pad_zero_row(grad)
    out = grad.new_empty(plan.mask.num_visible, th, tw, weight.shape[1])
    for phase in ((i, j) for i in range(sh) for j in range(sw)):
        index, (ky, kx) = reader_rows(plan.mask, plan.tile, plan.window, phase)
        part = out[:, phase[0] :: sh, phase[1] :: sw]
        if not index.numel():
            part.zero_()
            continue
        matrix = weight[:, :, ky, kx].permute(2, 3, 0, 1).reshape(-1, weight.shape[1])
        gathered = padded.index_select(0, index).view(-1, matrix.shape[0])
        part.copy_(multiply(gathered, matrix).view(part.shape))
    return out.view(-1, weight.shape[1])


def columns_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(Co, C, kh, kw): one product with the taps of every output side by side."""
    co, c, kh, kw = weight.shape
    product = multiply_transposed(grad, _columns(rows, plan))
    return product.view(co, kh, kw, c).permute(0, 3, 1, 2)


# taps --------------------------------------------------------------------------------------


def _pairs(plan: ConvPlan) -> list[tuple[Tensor, Tensor] | None]:
    """For each tap, the outputs that read a visible position through it, and that position.

    None for the tap through which every position reads itself.
    """

    def build() -> list[tuple[Tensor, Tensor] | None]:
        index = tap_rows(plan.mask, plan.tile, plan.window).t()
        visible = index < plan.mask.num_visible * plan.tile[0] * plan.tile[1]
        counts = visible.sum(1).tolist()
        outputs = visible.nonzero()[:, 1].split(counts)
        # Long, because additions at int32 positions take a slower way in torch.
        inputs = index.masked_select(visible).long().split(counts)
        pairs: list[tuple[Tensor, Tensor] | None] = list(zip(outputs, inputs, strict=True))
        if plan.window.own_tap is not None:
            pairs[plan.window.own_tap] = None
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


def taps_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R', Co): one product per tap."""
    th, tw = plan.out_tile
    return _add_up(rows, _by_tap(weight).mT, _pairs(plan), plan.mask.num_visible * th * tw)


def taps_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R, C): one product per tap, from outputs back to inputs."""
    th, tw = plan.tile
    back = [None if pair is None else pair[::-1] for pair in _pairs(plan)]
    return _add_up(grad, _by_tap(weight), back, plan.mask.num_visible * th * tw)


def taps_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(Co, C, kh, kw): one product per tap."""
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
