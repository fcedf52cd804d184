"""ReLU6 and its like, with one tensor saved instead of two."""

from __future__ import annotations

import torch
from torch import Tensor


def hardtanh(
    values: Tensor, min_val: float = -1.0, max_val: float = 1.0, *, inplace: bool = False
) -> Tensor:
    """``F.hardtanh`` whose gradient reads the result, which the next layer saves anyway.

    torch's own saves the input, and a copy of it where it is overwritten. The result is a view,
    which tells maps not to write to it: unlike torch's own, this one needs it unchanged.

    Raises:
        ValueError: the limits are in the wrong order.
    """
    if min_val > max_val:
        raise ValueError(f'min_val={min_val} of hardtanh is greater than max_val={max_val}.')
    out = _Hardtanh.apply(values, min_val, max_val, inplace)
    return out.view(out.shape)


def relu6(values: Tensor, *, inplace: bool = False) -> Tensor:
    """``F.relu6``; see ``hardtanh``."""
    return hardtanh(values, 0.0, 6.0, inplace=inplace)


class _Hardtanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, low: float, high: float, inplace: bool) -> Tensor:
        out = values.clamp_(low, high) if inplace else values.clamp(low, high)
        if inplace:
            ctx.mark_dirty(values)
        ctx.save_for_backward(out)
        ctx.limits = low, high
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, out, *ctx.limits), None, None, None
