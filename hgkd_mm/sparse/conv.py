"""Convolution of the rows of visible tiles, exact, without touching hidden positions.

Four methods compute the same numbers, each fastest for some size of tile and device:

- halo: torch's convolution of tiles with their border;
- canvas: torch's convolution of the full map;
- columns: one matrix product with the taps of every output gathered side by side;
- taps: one matrix product per tap, only where the tap falls on a visible position.

None saves gathered copies for the backward pass: they are gathered again from the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair, cached_table
from .rows import (
    at_least_float32,
    empty_map,
    gather,
    linear,
    multiply_transposed,
    pad_zero_rows,
    rows_of,
    rows_to_map,
    rows_to_tiles,
    visible_of,
)
from .window import Geometry, block_rows, halo_rows, reader_rows, tap_rows

# Which gradients torch computes: of the input, the weight and the bias.
INPUT, WEIGHT, BOTH = (True, False, False), (False, True, False), (True, True, False)


class Conv(NamedTuple):
    """A convolution: on which cells, with which window, in how many groups of channels.

    The weight is (Co, C / groups, kh, kw), as torch's Conv2d holds it.
    """

    mask: CellMask
    geometry: Geometry
    groups: int


class Method(NamedTuple):
    """A way to compute the three products of a convolution."""

    # Of (R, C) rows and the weight: (R', Co) rows of the output.
    forward: Callable[[Tensor, Tensor, Conv], Tensor]
    # Of the (R', Co) gradient and the weight: (R, C).
    grad_input: Callable[[Tensor, Tensor, Conv], Tensor]
    # Of the (R', Co) gradient, the (R, C) rows and the weight: in the weight's shape.
    grad_weight: Callable[[Tensor, Tensor, Tensor, Conv], Tensor]


def conv_rows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, conv: Conv, method: Method
) -> Tensor:
    """(R', Co) rows of the output, from (R, C) rows of the input."""
    out = _ConvRows.apply(rows, weight, conv, method)
    return out if bias is None else out.add_(bias)


class _ConvRows(torch.autograd.Function):
    """Saves only the input and the weight."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, conv: Conv, method: Method) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.conv, ctx.method = conv, method
        return method.forward(rows, weight, conv)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, weight = ctx.saved_tensors
        conv, method = ctx.conv, ctx.method
        grad = grad.contiguous()
        if ctx.needs_input_grad[:2] == (True, True) and method[1:] == CANVAS[1:]:
            # One call gives both gradients.
            return *_canvas_gradients(grad, rows, weight, conv, BOTH), None, None
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = method.grad_input(grad, weight, conv)
        if ctx.needs_input_grad[1]:
            grad_weight = method.grad_weight(grad, rows, weight, conv)
        return grad_rows, grad_weight, None, None


# Halo --------------------------------------------------------------------------------------


def _halo_forward(rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    window = conv.geometry.window
    tiles = gather(rows, halo_rows(conv.mask, conv.geometry))
    return rows_of(F.conv2d(tiles, weight, None, window.stride, 0, window.dilation, conv.groups))


def _halo_grad_input(grad: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    """Convolution with the mirrored kernel; through a stride, tiles are not faster than maps."""
    geometry, window, groups = conv.geometry, conv.geometry.window, conv.groups
    if window.stride != (1, 1):
        return _canvas_grad_input(grad, weight, conv)
    first = tuple(p + 1 - s for p, s in zip(window.padding, window.span, strict=True))
    tiles = gather(grad, block_rows(conv.mask, geometry.out_tile, first, geometry.reach))
    by_group = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return rows_of(F.conv2d(tiles, by_group, None, 1, 0, window.dilation, groups))


def _halo_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    tiles = gather(rows, halo_rows(conv.mask, conv.geometry))
    outputs = rows_to_tiles(grad, conv.geometry.out_tile)
    return _backward(outputs, tiles, weight, conv, (0, 0), WEIGHT)[1]


def _backward(
    grad: Tensor, image: Tensor, weight: Tensor, conv: Conv, padding: Pair, wanted: tuple
) -> tuple[Tensor | None, Tensor | None]:
    """Torch's own gradients of image and weight; of what is not needed only the shape is read."""
    window = conv.geometry.window
    how = window.stride, padding, window.dilation, False, (0, 0), conv.groups, wanted
    return torch.ops.aten.convolution_backward(grad, image, weight, None, *how)[:2]


# Canvas ------------------------------------------------------------------------------------


def _canvas_forward(rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    mask, (window, tile, out_tile) = conv.mask, conv.geometry[:3]
    dense, padding = window.on_dense(rows_to_map(rows, mask, tile))
    out = F.conv2d(dense, weight, None, window.stride, padding, window.dilation, conv.groups)
    return visible_of(out, mask, out_tile)


def _canvas_gradients(
    grad: Tensor, rows: Tensor | None, weight: Tensor, conv: Conv, wanted: tuple
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of rows and weight, None if not wanted; for INPUT alone no rows are needed."""
    mask, (window, tile, out_tile) = conv.mask, conv.geometry[:3]
    if rows is None:
        image = empty_map(grad, (mask.batch, weight.shape[1] * conv.groups, *mask.size(tile)))
    else:
        image = rows_to_map(rows, mask, tile)
    image, padding = window.on_dense(image)
    outputs = rows_to_map(grad, mask, out_tile)
    wide, grad_weight = _backward(outputs, image, weight, conv, padding, wanted)
    if wide is None:
        return None, grad_weight
    return visible_of(window.cut(wide, mask.size(tile)), mask, tile), grad_weight


def _canvas_grad_input(grad: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    return _canvas_gradients(grad, None, weight, conv, INPUT)[0]


def _canvas_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    return _canvas_gradients(grad, rows, weight, conv, WEIGHT)[1]


# Columns -----------------------------------------------------------------------------------


def _columns(rows: Tensor, conv: Conv) -> Tensor:
    """(R', kh * kw * C): the taps of every output side by side."""
    index = tap_rows(conv.mask, conv.geometry)
    return pad_zero_rows(rows).index_select(0, index.view(-1)).view(len(index), -1)


def _columns_forward(rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    matrix = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
    return linear(_columns(rows, conv), matrix, None)


def _columns_grad_input(grad: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    """For each phase of the stride one product with the outputs that read it: no scattering."""
    (sh, sw), (th, tw) = conv.geometry.window.stride, conv.geometry.tile
    padded = pad_zero_rows(grad)
    out = grad.new_empty(conv.mask.num_visible, th, tw, weight.shape[1])
    for phase in ((i, j) for i in range(sh) for j in range(sw)):
        index, (ky, kx) = reader_rows(conv.mask, conv.geometry, phase)
        part = out[:, phase[0] :: sh, phase[1] :: sw]
        if not index.numel():
            part.zero_()
            continue
        matrix = weight[:, :, ky, kx].permute(2, 3, 0, 1).reshape(-1, weight.shape[1])
        gathered = padded.index_select(0, index).view(-1, matrix.shape[0])
        part.copy_(linear(gathered, matrix.t(), None).view(part.shape))
    return out.view(-1, weight.shape[1])


def _columns_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    co, c, kh, kw = weight.shape
    product = multiply_transposed(grad, _columns(rows, conv))
    return product.view(co, kh, kw, c).permute(0, 3, 1, 2)


# Taps --------------------------------------------------------------------------------------

# For each tap the outputs that read a visible position through it, and that position.
Pairs = list[tuple[Tensor, Tensor] | None]


@cached_table
def _tap_pairs(mask: CellMask, geometry: Geometry) -> Pairs:
    """Pairs of rows, None for the tap through which every position reads itself."""
    index = tap_rows(mask, geometry).t()
    visible = index < mask.num_visible * geometry.tile[0] * geometry.tile[1]
    counts = visible.sum(1).tolist()
    outputs = visible.nonzero()[:, 1].split(counts)
    # Long, because additions at int32 positions take a slower way in torch.
    inputs = index.masked_select(visible).long().split(counts)
    pairs: Pairs = list(zip(outputs, inputs, strict=True))
    if geometry.window.own_tap is not None:
        pairs[geometry.window.own_tap] = None
    return pairs


def _by_tap(weight: Tensor) -> Tensor:
    """(kh * kw, Co, C), each matrix as a product needs it: rows or columns contiguous."""
    by_tap = weight.permute(2, 3, 0, 1).flatten(0, 1)
    return by_tap if by_tap.stride(2) == 1 else by_tap.contiguous()


def _add_up(read: Tensor, matrices: Tensor, pairs: Pairs, tile: Pair, mask: CellMask) -> Tensor:
    """(N * th * tw, C'): sum over taps of ``read`` times their matrices; float32 for half types."""
    dtype = at_least_float32(read.dtype)
    if None in pairs:
        out = (read @ matrices[pairs.index(None)]).to(dtype)
    else:
        rows = mask.num_visible * tile[0] * tile[1]
        out = read.new_zeros(rows, matrices.shape[2], dtype=dtype)
    for matrix, pair in zip(matrices, pairs, strict=True):
        if pair is not None and len(pair[0]):
            out.index_add_(0, pair[0], (read.index_select(0, pair[1]) @ matrix).to(dtype))
    return out.to(read.dtype)


def _taps_forward(rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    pairs = _tap_pairs(conv.mask, conv.geometry)
    return _add_up(rows, _by_tap(weight).mT, pairs, conv.geometry.out_tile, conv.mask)


def _taps_grad_input(grad: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    pairs = _tap_pairs(conv.mask, conv.geometry)
    back = [None if pair is None else pair[::-1] for pair in pairs]
    return _add_up(grad, _by_tap(weight), back, conv.geometry.tile, conv.mask)


def _taps_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, conv: Conv) -> Tensor:
    co, c, kh, kw = weight.shape
    out = grad.new_zeros(kh * kw, co, c)
    for product, pair in zip(out, _tap_pairs(conv.mask, conv.geometry), strict=True):
        if pair is None:
            torch.mm(grad.t(), rows, out=product)
        elif len(pair[0]):
            outputs, inputs = pair
            read = rows.index_select(0, inputs)
            torch.mm(grad.index_select(0, outputs).t(), read, out=product)
    return out.view(kh, kw, co, c).permute(2, 3, 0, 1)


# Choice ------------------------------------------------------------------------------------

HALO = Method(_halo_forward, _halo_grad_input, _halo_grad_weight)
CANVAS = Method(_canvas_forward, _canvas_grad_input, _canvas_grad_weight)
COLUMNS = Method(_columns_forward, _columns_grad_input, _columns_grad_weight)
TAPS = Method(_taps_forward, _taps_grad_input, _taps_grad_weight)
# By name, for tables of their times; columns and taps are for one group only.
METHODS = {'halo': HALO, 'canvas': CANVAS, 'columns': COLUMNS, 'taps': TAPS}


def full_map_pays(device: str) -> bool:
    """Whether convolutions and max poolings read full maps on this kind of device.

    On an NVIDIA GPU arithmetic is nearly free beside memory and the host's time: the full map
    needs one small index table for all layers of a stage, the others one per window (docs/gpu.md).
    """
    return device == 'cuda'


def choose_method(conv: Conv, full_map: bool) -> Method:
    """The fastest function for each product, with ``full_map_pays`` of the device.

    Measured on CPU (docs/speed.md): torch's convolution on a batch of tiles wins while tiles are
    large; below, matrix products on gathered rows, and on the smallest tiles products per tap,
    since most neighbors are hidden there.
    """
    if full_map:
        return CANVAS
    if conv.groups > 1:
        return HALO if _border_pays(conv) else CANVAS
    small, stride_one = min(conv.geometry.tile), conv.geometry.window.stride == (1, 1)
    if small >= 8 and stride_one:
        return HALO
    if small >= 8:
        # Of a stem, the table of all taps costs more than torch's gradient of the weight.
        grad_weight = (HALO if small >= 16 else COLUMNS).grad_weight
        return Method(HALO.forward, COLUMNS.grad_input, grad_weight)
    if small >= 4 and stride_one:
        return HALO._replace(grad_weight=COLUMNS.grad_weight)
    return TAPS


def _border_pays(conv: Conv) -> bool:
    """Whether visible tiles with their border are less work than the full map.

    Of the same area the full map is about 2.6 times as slow: it is filled and copied as well.
    """
    mask, (height, width) = conv.mask, conv.geometry.reach
    map_height, map_width = mask.size(conv.geometry.tile)
    return mask.num_visible * height * width <= 2.6 * mask.batch * map_height * map_width
