"""Max pooling of the rows of visible tiles: hidden neighbours count as 0."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair
from .conv_plan import ConvPlan
from .gather import canvas_of, empty_map, visible_of
from .products import rows_of
from .window import Window, halo_rows


def max_pool_rows(
    rows: Tensor, mask: CellMask, tile: Pair, window: Window, outside: float = -math.inf
) -> Tensor:
    """Maximum over windows of a map held as rows.

    Args:
        rows: (R, C) visible positions.
        mask: the visible cells.
        tile: (th, tw) positions of a cell on this map.
        window: what each output reads.
        outside: value of the padding around the image.

    Returns:
        (R', C) visible positions of the output.
    """
    if ConvPlan.on_map(rows.device.type):
        return _OfMap.apply(rows, mask, tile, window, outside)
    index = halo_rows(mask, tile, window)
    zero = rows.new_zeros(1, rows.shape[1])
    filled = torch.cat([rows, zero, torch.full_like(zero, outside)])
    # Long, because its gradient adds up: at int32 positions torch takes a slower way.
    halo = filled.index_select(0, index.flatten().long()).view(*index.shape, -1)
    halo = halo.permute(0, 3, 1, 2)
    return rows_of(F.max_pool2d(halo, window.kernel, window.stride, 0, window.dilation))


class _OfMap(torch.autograd.Function):
    """By torch's pooling of the full map, of which only the visible part is saved."""

    @staticmethod
    def forward(
        ctx, rows: Tensor, mask: CellMask, tile: Pair, window: Window, outside: float
    ) -> Tensor:
        dense, padding = window.on_dense(
            canvas_of(rows, mask, tile), outside, own=-math.inf, pools=True
        )
        ctx.how = window.kernel, window.stride, padding, window.dilation, window.ceil_mode
        ctx.mask, ctx.tile, ctx.window, ctx.shape = mask, tile, window, dense.shape
        out, chosen = torch.ops.aten.max_pool2d_with_indices(dense, *ctx.how)
        out_tile = window.out_tile(mask, tile)
        ctx.save_for_backward(visible_of(chosen, mask, out_tile))
        return visible_of(out, mask, out_tile)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (chosen,) = ctx.saved_tensors
        mask, tile, window = ctx.mask, ctx.tile, ctx.window
        out_tile = window.out_tile(mask, tile)
        # Hidden outputs choose position 0, to which their gradient of 0 adds nothing.
        outputs, chosen = (canvas_of(t, mask, out_tile) for t in (grad.contiguous(), chosen))
        # Of the input only the shape is read.
        image = empty_map(grad, ctx.shape)
        wide = torch.ops.aten.max_pool2d_with_indices_backward(outputs, image, *ctx.how, chosen)
        return visible_of(window.cut(wide, mask, tile), mask, tile), None, None, None, None
