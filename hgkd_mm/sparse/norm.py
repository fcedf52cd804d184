"""Norms and means of a SparseFeatureMap; statistics over space count visible positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import refuse
from .feature_map import SparseFeatureMap
from .rows import as_image, at_least_float32, rows_of
from .window import pair

_on_map = SparseFeatureMap.answers
Axes = int | Sequence[int] | None


def axes_of(dim: Axes) -> list[int]:
    """Axes of a 4-dimensional tensor, counted from 0, in order."""
    return sorted(d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ()))


@_on_map(F.adaptive_avg_pool2d)
def _adaptive_avg_pool2d(input: SparseFeatureMap, output_size: int | Sequence[int]) -> Tensor:
    if pair(output_size) != (1, 1):
        raise refuse('adaptive_avg_pool2d', f'only to an output size of 1, got {output_size}.')
    return input.mean_visible()[:, :, None, None]


@_on_map(torch.mean, Tensor.mean)
def _mean(
    input: SparseFeatureMap, dim: Axes = None, keepdim: bool = False
) -> Tensor | SparseFeatureMap:
    axes = axes_of(dim)
    if axes == [1] and keepdim:
        return input.with_rows(input.rows.mean(1, keepdim=True))
    if axes != [2, 3]:
        raise refuse('mean', f'only over space or channels, got axes {axes} of (B, C, H, W).')
    return _spatial(input.mean_visible(), keepdim)


@_on_map(torch.norm, Tensor.norm)
def _norm(
    input: SparseFeatureMap,
    p: float | str = 2,
    dim: Axes = None,
    keepdim: bool = False,
    **rest: Any,
) -> Tensor:
    axes = axes_of(dim)
    if axes != [2, 3] or p not in (2, 'fro') or any(value is not None for value in rest.values()):
        raise refuse('norm', f'only the 2-norm over space, got p={p}, axes {axes} and {rest}.')
    squares = input.image_sum(input.rows.to(at_least_float32(input.dtype)).square())
    # The root has no slope at zero, where torch's own norm takes 0.
    some = squares > 0
    roots = torch.where(some, torch.where(some, squares, 1.0).sqrt(), 0.0)
    return _spatial(roots.to(input.dtype), keepdim)


def _spatial(values: Tensor, keepdim: bool) -> Tensor:
    return values[:, :, None, None] if keepdim else values


@_on_map(F.batch_norm)
def _batch_norm(input: SparseFeatureMap, *args: Any, **kwargs: Any) -> SparseFeatureMap:
    rows = input.rows
    if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
        # The same kernels read rows as they are, and views cost a launch-bound step its time.
        return input.with_rows(F.batch_norm(rows, *args, **kwargs))
    # As a channels-last (1, C, R, 1) image, with strides that say so: other paths are slower.
    return input.with_rows(rows_of(F.batch_norm(as_image(rows.contiguous()), *args, **kwargs)))


@_on_map(F.group_norm)
def _group_norm(
    input: SparseFeatureMap,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> SparseFeatureMap:
    rows = input.rows
    if input.mask.per_image is not None:
        image = rows.view(input.mask.batch, -1, input.channels).transpose(1, 2)
        out = F.group_norm(image, num_groups, weight, bias, eps)
        return input.with_rows(out.transpose(1, 2).reshape(rows.shape))

    def over_group(values: Tensor) -> Tensor:
        """(B, C): mean over the visible positions of an image and the channels of a group."""
        means = input.image_mean(values).unflatten(1, (num_groups, -1)).mean(2, keepdim=True)
        return means.expand(-1, -1, input.channels // num_groups).flatten(1)

    rows = rows.to(at_least_float32(rows.dtype))
    centered = rows - input.of_image(over_group(rows))
    variance = over_group(centered.square())
    out = centered * input.of_image((variance + eps).rsqrt())
    out = out if weight is None else out * weight
    out = out if bias is None else out + bias
    return input.with_rows(out.to(input.dtype))
