"""Convolution by torch's own: on tiles with their border (halo) or on the full map (canvas)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .cell_mask import Pair
from .conv_plan import ConvPlan
from .gather import canvas_of, empty_map, gather_halo, gather_tiles, rows_to_tiles, visible_of
from .products import INPUT, WEIGHT, Wanted, conv_gradients, rows_of
from .window import Window

# halo --------------------------------------------------------------------------------------


def halo_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R', Co): torch's convolution of tiles with their border."""
    window = plan.window
    tiles = gather_halo(rows, plan.mask, plan.tile, window)
    return rows_of(F.conv2d(tiles, weight, None, window.stride, 0, window.dilation, plan.groups))


def halo_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R, C): each tile from the gradients of its own outputs and those around."""
    if plan.window.stride == (1, 1):
        return _convolve_back(grad, weight, plan)
    return _transpose_back(grad, weight, plan)


def _convolve_back(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """Gradient through a window of stride 1: convolution with the mirrored kernel."""
    window, groups = plan.window, plan.groups
    before, after = (
        tuple(s - 1 - p for s, p in zip(window.span, side, strict=True))
        for side in (window.padding, window.behind)
    )
    mirror = Window(window.kernel, (1, 1), before, window.dilation, trailing=after)
    tiles = gather_halo(grad, plan.mask, plan.out_tile, mirror)
    by_group = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return rows_of(F.conv2d(tiles, by_group, None, 1, 0, window.dilation, groups))


def _transpose_back(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """Gradient through a stride: from all outputs that read a tile, cut out of what they read."""
    window, mask, tile = plan.window, plan.mask, plan.tile
    steps = tuple(zip(tile, window.stride, window.padding, window.span, strict=True))
    first = tuple(-(-(p + 1 - span) // s) for _, s, p, span in steps)
    count = tuple((t - 1 + p) // s - f + 1 for (t, s, p, _), f in zip(steps, first, strict=True))
    reads = tuple((n - 1) * s + span for (_, s, _, span), n in zip(steps, count, strict=True))
    outputs = gather_tiles(grad, mask, plan.out_tile, first, count)
    read = empty_map(grad, (mask.num_visible, weight.shape[1] * plan.groups, *reads))
    wide = _backward(outputs, read, weight, plan, (0, 0), INPUT)[0]
    before = tuple(p - f * s for (_, s, p, _), f in zip(steps, first, strict=True))
    behind = tuple(r - b - t for r, b, t in zip(reads, before, tile, strict=True))
    # Negative padding cuts; positive adds positions that no output reads.
    return rows_of(F.pad(wide, (-before[1], -behind[1], -before[0], -behind[0])))


def halo_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(Co, C / groups, kh, kw): torch's gradient on tiles with their border."""
    tiles = gather_halo(rows, plan.mask, plan.tile, plan.window)
    outputs = rows_to_tiles(grad, plan.out_tile)
    return _backward(outputs, tiles, weight, plan, (0, 0), WEIGHT)[1]


# canvas ------------------------------------------------------------------------------------


def canvas_forward(rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R', Co): torch's convolution of the full map, of which visible rows are kept."""
    window = plan.window
    dense, padding = window.on_dense(canvas_of(rows, plan.mask, plan.tile))
    out = F.conv2d(dense, weight, None, window.stride, padding, window.dilation, plan.groups)
    return visible_of(out, plan.mask, plan.out_tile)


def canvas_gradients(
    grad: Tensor, rows: Tensor | None, weight: Tensor, plan: ConvPlan, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of rows and weight by torch's on the full map, None if not wanted.

    Both at once share the map of the outputs' gradient. For INPUT alone no rows are needed.
    """
    mask, tile, grid = plan.mask, plan.tile, plan.mask.grid
    if rows is None:
        size = grid[0] * tile[0], grid[1] * tile[1]
        image = empty_map(grad, (mask.batch, weight.shape[1] * plan.groups, *size))
    else:
        image = canvas_of(rows, mask, plan.tile)
    image, padding = plan.window.on_dense(image)
    outputs = canvas_of(grad, mask, plan.out_tile)
    wide, grad_weight = _backward(outputs, image, weight, plan, padding, wanted)
    if wide is None:
        return None, grad_weight
    return visible_of(plan.window.cut(wide, mask, plan.tile), mask, plan.tile), grad_weight


def canvas_grad_input(grad: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(R, C): torch's gradient on the full map, of which visible rows are kept."""
    return canvas_gradients(grad, None, weight, plan, INPUT)[0]


def canvas_grad_weight(grad: Tensor, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(Co, C / groups, kh, kw): torch's gradient on the full map."""
    return canvas_gradients(grad, rows, weight, plan, WEIGHT)[1]


def _backward(
    grad: Tensor,
    image: Tensor,
    weight: Tensor,
    plan: ConvPlan,
    padding: Pair,
    wanted: Wanted,
) -> tuple[Tensor | None, Tensor | None]:
    window = plan.window
    return conv_gradients(
        grad,
        image,
        weight,
        wanted,
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=plan.groups,
    )
