"""Rows of visible positions: laid out as tiles or maps, gathered with neighbors, multiplied.

On CPU products run as 1 x 1 convolutions of a channels-last image that has the rows as its
positions, because oneDNN's convolutions are faster there than the matrix product that torch
would call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type to add up values of this type in."""
    return torch.promote_types(dtype, torch.float32)


# Tiles -------------------------------------------------------------------------------------


def rows_to_tiles(rows: Tensor, tile: Pair) -> Tensor:
    """(N, C, th, tw) channels-last view of (R, C) rows."""
    return rows.view(-1, *tile, rows.shape[1]).permute(0, 3, 1, 2)


def pad_zero_rows(rows: Tensor) -> Tensor:
    """(R + 2, C): zeros behind the rows, where tables point for what is hidden or outside."""
    out = rows.new_empty(rows.shape[0] + 2, rows.shape[1])
    out[:-2] = rows
    out[-2:] = 0
    return out


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """(N, C, h, w) channels-last: rows by an (N, h, w) table; hidden and outside ones are zero."""
    tiles = pad_zero_rows(rows).index_select(0, index.view(-1))
    return tiles.view(*index.shape, rows.shape[1]).permute(0, 3, 1, 2)


# Maps --------------------------------------------------------------------------------------


def rows_to_map(rows: Tensor, mask: CellMask, tile: Pair, fill: float | Tensor = 0.0) -> Tensor:
    """(B, C, H, W) channels-last map, with ``fill``, a number or (1, C), at hidden positions."""
    (height, full_width), (th, tw), channels = mask.size(tile), tile, rows.shape[1]
    count, width = mask.batch * height * mask.grid[1], tw * channels
    if isinstance(fill, Tensor):
        filled = fill.repeat(count, tw)
    else:
        filled = rows.new_full((count, width), fill) if fill else rows.new_zeros(count, width)
    source, target = rows.reshape(-1, width), filled
    if not torch.is_grad_enabled():
        source = _in_wide_elements(source)
        target = filled.view(source.dtype)
    target.index_copy_(0, mask.tile_rows(th), source)
    return filled.view(mask.batch, height, full_width, channels).permute(0, 3, 1, 2)


def _in_wide_elements(rows: Tensor) -> Tensor:
    """The same bytes in elements of 16, where they fit: CUDA copies one element per thread."""
    size = rows.element_size()
    fits = all(count * size % 16 == 0 for count in (rows.shape[1], rows.storage_offset()))
    return rows.view(torch.complex128) if fits and rows.is_contiguous() else rows


def empty_map(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A (B, C, H, W) channels-last map whose shape is all that a gradient of it needs."""
    batch, channels, height, width = shape
    return like.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)


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
    """Its gradient is written, not added up, since no position is read twice."""

    @staticmethod
    def forward(ctx, image: Tensor, mask: CellMask, tile: Pair) -> Tensor:
        ctx.mask, ctx.tile = mask, tile
        return visible_of(image, mask, tile)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return rows_to_map(grad.contiguous(), ctx.mask, ctx.tile), None, None


# Products ----------------------------------------------------------------------------------


def rows_of(image: Tensor) -> Tensor:
    """(B * H * W, C) rows of a (B, C, H, W) result, without a copy when it is channels-last.

    The rows are no view to autograd, so that later ops may change them in place. Only for the
    output of an op that does not save it for its gradient (convolution, norm, pooling).
    """
    last = image.permute(0, 2, 3, 1).contiguous()
    return torch.ops.aten._unsafe_view(last, (-1, image.shape[1]))


def as_image(rows: Tensor, batch: int = 1) -> Tensor:
    """(batch, C, R / batch, 1) channels-last view of (R, C) rows."""
    return rows.view(batch, rows.shape[0] // batch, 1, rows.shape[1]).permute(0, 3, 1, 2)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, Co): ``rows @ weight.t() + bias`` of (R, C) and (Co, C)."""
    batch = _batch(rows, weight.shape)
    if batch:
        return rows_of(F.conv2d(as_image(rows, batch), weight[:, :, None, None], bias))
    return F.linear(rows, weight, bias)


def multiply_transposed(grad: Tensor, rows: Tensor) -> Tensor:
    """(Co, C): ``grad.t() @ rows`` of (R, Co) and (R, C), the gradient of a weight."""
    channels = grad.shape[1], rows.shape[1]
    batch = _batch(rows, channels)
    if not batch:
        return grad.t() @ rows
    tensors = as_image(grad, batch), as_image(rows, batch), rows.new_empty(*channels, 1, 1), None
    how = (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (False, True, False)
    return torch.ops.aten.convolution_backward(*tensors, *how)[1].view(channels)


def _batch(rows: Tensor, channels: tuple[int, ...]) -> int:
    """Number of images to lay the rows out in, or 0 for a plain product."""
    fits = rows.device.type == 'cpu' and rows.dtype in (torch.float32, torch.bfloat16)
    # Where the weight is larger than the map, laying it out anew for oneDNN costs what is won.
    if not fits or rows.shape[0] < max(channels) or not torch.backends.mkldnn.is_available():
        return 0
    # With fewer than 16 torch leaves oneDNN for its slow convolution on a single thread.
    return next((batch for batch in (32, 16) if rows.shape[0] % batch == 0), 0)
