"""Convolution of the rows of visible tiles, exact, without touching hidden positions.

Four ways to compute the same numbers, each the fastest somewhere (``ConvPlan``). None saves
gathered copies for the backward pass: they are gathered again from the input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .conv_gathered import (
    columns_forward,
    columns_grad_input,
    columns_grad_weight,
    taps_forward,
    taps_grad_input,
    taps_grad_weight,
)
from .conv_plan import ConvPlan
from .conv_tiles import (
    canvas_forward,
    canvas_grad_input,
    canvas_grad_weight,
    canvas_gradients,
    halo_forward,
    halo_grad_input,
    halo_grad_weight,
)
from .products import BOTH

FORWARD = {
    'halo': halo_forward,
    'canvas': canvas_forward,
    'columns': columns_forward,
    'taps': taps_forward,
}
GRAD_INPUT = {
    'halo': halo_grad_input,
    'canvas': canvas_grad_input,
    'columns': columns_grad_input,
    'taps': taps_grad_input,
}
GRAD_WEIGHT = {
    'halo': halo_grad_weight,
    'canvas': canvas_grad_weight,
    'columns': columns_grad_weight,
    'taps': taps_grad_weight,
}


def conv_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, plan: ConvPlan) -> Tensor:
    """Convolution of a map held as rows.

    Args:
        rows: (R, C) visible positions.
        weight: (Co, C / groups, kh, kw) as torch's Conv2d holds it.
        bias: (Co,) or None.
        plan: geometry and methods.

    Returns:
        (R', Co) visible positions of the output.
    """
    out = _ConvRows.apply(rows, weight, plan)
    return out if bias is None else out.add_(bias)


class _ConvRows(torch.autograd.Function):
    """Chooses the method of each product; saves only the input and the weight."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.plan = plan
        return FORWARD[plan.forward](rows, weight, plan)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        plan: ConvPlan = ctx.plan
        grad = grad.contiguous()
        if ctx.needs_input_grad[:2] == (True, True) and plan.backward_on_canvas:
            return *canvas_gradients(grad, rows, weight, plan, BOTH), None
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = GRAD_INPUT[plan.grad_input](grad, weight, plan)
        if ctx.needs_input_grad[1]:
            grad_weight = GRAD_WEIGHT[plan.grad_weight](grad, rows, weight, plan)
        return grad_rows, grad_weight, None
