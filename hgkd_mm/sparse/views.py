"""Views of a map: channels last, as in ConvNeXt, and channels in groups, as in channel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import TensorLike, refuse
from .feature_map import SparseFeatureMap
from .norm import Axes, axes_of
from .ops import ACTIVATIONS, named, same_kind


def _integers(args: tuple) -> list[int]:
    """Axes or sizes that were given one by one or as one sequence."""
    return list(args[0] if isinstance(args[0], Sequence) else args)


# Channels last -----------------------------------------------------------------------------


class ChannelsLastMap(TensorLike):
    """What ``map.permute(0, 2, 3, 1)`` gives: the same rows, with the axes in another order."""

    def __init__(self, inner: SparseFeatureMap) -> None:
        self.inner = self.held = inner

    @property
    def shape(self) -> torch.Size:
        """(B, H, W, C)."""
        batch, channels, height, width = self.inner.shape
        return torch.Size((batch, height, width, channels))


_on_last = ChannelsLastMap.answers
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


@SparseFeatureMap.answers(Tensor.permute, torch.permute)
def _permute(input: SparseFeatureMap, *dims: Any) -> ChannelsLastMap:
    if [d % 4 for d in _integers(dims)] != _LAST:
        raise refuse('permute', f'only to (B, H, W, C), by (0, 2, 3, 1); got {dims}.')
    return ChannelsLastMap(input)


@_on_last(Tensor.permute, torch.permute)
def _permute_back(input: ChannelsLastMap, *dims: Any) -> SparseFeatureMap:
    if [d % 4 for d in _integers(dims)] != _FIRST:
        raise refuse('permute', f'only back to (B, C, H, W), by (0, 3, 1, 2); got {dims}.')
    return input.inner


@_on_last(Tensor.contiguous)
def _contiguous(input: ChannelsLastMap, memory_format: Any = None) -> ChannelsLastMap:
    # A copy, as of a tensor that was permuted: an in-place op on it must not reach the map.
    return ChannelsLastMap(input.inner.share())


@_on_last(F.linear)
def _linear(input: ChannelsLastMap, weight: Tensor, bias: Tensor | None = None) -> ChannelsLastMap:
    return ChannelsLastMap(F.conv2d(input.inner, weight[:, :, None, None], bias))


@_on_last(F.layer_norm)
def _layer_norm(
    input: ChannelsLastMap, normalized_shape: Sequence[int], *args: Any, **kwargs: Any
) -> ChannelsLastMap:
    channels, shape = input.inner.channels, tuple(normalized_shape)
    if shape != (channels,):
        raise refuse('layer_norm', f'only over the {channels} channels of a position, got {shape}.')
    rows = F.layer_norm(input.inner.rows, shape, *args, **kwargs)
    return ChannelsLastMap(input.inner.with_rows(rows))


@_on_last(torch.norm, Tensor.norm)
def _norm(
    input: ChannelsLastMap, p: float | str = 2, dim: Axes = None, keepdim: bool = False, **rest: Any
) -> Tensor:
    return _statistic(torch.norm(input.inner, p, _axes_first(dim), keepdim, **rest))


@_on_last(torch.mean, Tensor.mean)
def _mean(
    input: ChannelsLastMap, dim: Axes = None, keepdim: bool = False
) -> Tensor | ChannelsLastMap:
    return _statistic(torch.mean(input.inner, _axes_first(dim), keepdim))


def _axes_first(dim: Axes) -> list[int]:
    """Where axes of (B, H, W, C) are in (B, C, H, W)."""
    return [_LAST[axis] for axis in axes_of(dim)]


def _statistic(out: Tensor | SparseFeatureMap) -> Tensor | ChannelsLastMap:
    if isinstance(out, SparseFeatureMap):
        return ChannelsLastMap(out)
    return out.permute(_LAST) if out.dim() == 4 else out


def _inside(function: Callable, *args: Any, **kwargs: Any) -> ChannelsLastMap:
    """Applies a function of single values to the map inside."""
    operands = tuple(_channels_first(arg) for arg in args)
    out = SparseFeatureMap.__torch_function__(function, (), operands, kwargs)
    return args[0] if out is operands[0] else ChannelsLastMap(out)


def _channels_first(operand: Any) -> Any:
    """An operand that broadcasts from the last axis, in the order (B, C, H, W)."""
    if isinstance(operand, ChannelsLastMap):
        return operand.inner
    if isinstance(operand, Tensor) and operand.dim() > 0:
        return operand.reshape((1,) * (4 - operand.dim()) + tuple(operand.shape)).permute(_FIRST)
    return operand


# An in-place op of the view changes the map behind it, as a view of a tensor would.
_ARITHMETIC = ('add', 'sub', 'mul', 'div', 'pow', 'rsqrt', 'addcmul')
_IN_PLACE = ('add_', 'sub_', 'mul_', 'div_')
for _function in (
    *ACTIVATIONS,
    *named(torch, *_ARITHMETIC),
    *named(Tensor, *_ARITHMETIC, *_IN_PLACE, 'detach', 'to'),
):
    _on_last(_function)(partial(_inside, _function))


# Groups of channels ------------------------------------------------------------------------


class GroupedMap(TensorLike):
    """What ``map.view(B, r, C // r, H, W)`` gives: weighted, summed over r, or shuffled.

    Args:
        inner: the map, (B, C, H, W).
        groups: number r of groups of channels.
        swapped: whether the two axes of channels were exchanged, (B, C / r, r, H, W).
    """

    def __init__(self, inner: SparseFeatureMap, groups: int, swapped: bool = False) -> None:
        self.inner = self.held = inner
        self.groups = groups
        self.swapped = swapped

    @property
    def shape(self) -> torch.Size:
        """(B, r, C / r, H, W), or (B, C / r, r, H, W) if swapped."""
        batch, channels, height, width = self.inner.shape
        first, second = self.groups, channels // self.groups
        if self.swapped:
            first, second = second, first
        return torch.Size((batch, first, second, height, width))


_on_groups = GroupedMap.answers


@SparseFeatureMap.answers(torch.stack)
def _stack(tensors: Sequence[SparseFeatureMap], dim: int = 0) -> GroupedMap:
    first = tensors[0]
    if dim != 1 or not all(same_kind(t, first) and t.shape == first.shape for t in tensors):
        raise refuse('stack', 'maps of one size from one sparsify call, along dim=1 only.')
    return GroupedMap(torch.cat(tensors, dim=1), len(tensors))


@SparseFeatureMap.answers(Tensor.view, Tensor.reshape, torch.reshape)
def _view(input: SparseFeatureMap, *shape: Any) -> GroupedMap:
    sizes = _integers(shape)
    batch, channels, *space = input.shape
    if len(sizes) == 5 and sizes[0] in (batch, -1) and sizes[3:] == space:
        groups, each = sizes[1:3]
        if groups == -1 and each > 0:
            groups = channels // each
        if groups > 0 and channels % groups == 0 and each in (-1, channels // groups):
            return GroupedMap(input, groups)
    raise refuse(
        'view', f'only as (B, groups, C / groups, H, W) of {tuple(input.shape)}, got {sizes}.'
    )


@_on_groups(torch.sum, Tensor.sum)
def _sum(input: GroupedMap, dim: int | Sequence[int]) -> SparseFeatureMap:
    if dim not in (1, (1,), [1]) or input.swapped:
        raise refuse('sum', f'grouped channels can be summed over dim=1 only, got dim={dim}.')
    return input.inner.with_data(input.inner.data.unflatten(1, (input.groups, -1)).sum(1))


@_on_groups(torch.mul, Tensor.mul)
def _mul(input: GroupedMap | Tensor, other: GroupedMap | Tensor) -> GroupedMap:
    grouped, weights = (input, other) if isinstance(input, GroupedMap) else (other, input)
    groups, shape = grouped.groups, tuple(getattr(weights, 'shape', ()))
    if grouped.swapped or len(shape) != 5 or shape[1] != groups or shape[3:] != (1, 1):
        raise refuse('mul', f'weights of groups must be (B, {groups}, C, 1, 1), got {shape}.')
    weights = weights.expand(-1, -1, grouped.shape[2], 1, 1).flatten(1, 2)
    return GroupedMap(grouped.inner * weights, groups)


@_on_groups(torch.transpose, Tensor.transpose)
def _transpose(input: GroupedMap, dim0: int, dim1: int) -> GroupedMap:
    if sorted((dim0 % 5, dim1 % 5)) != [1, 2]:
        raise refuse('transpose', f'only the two axes of channels, 1 and 2; got {dim0}, {dim1}.')
    return GroupedMap(input.inner, input.groups, not input.swapped)


@_on_groups(Tensor.contiguous)
def _contiguous_groups(input: GroupedMap) -> GroupedMap:
    return input


@_on_groups(Tensor.view, Tensor.reshape, torch.reshape)
def _merge(input: GroupedMap, *shape: Any) -> SparseFeatureMap:
    """The map with all channels in one axis again, in the order of the view."""
    sizes, inner = _integers(shape), input.inner
    if len(sizes) != 4 or any(s not in (-1, n) for s, n in zip(sizes, inner.shape, strict=True)):
        raise refuse('view', f'only as {tuple(inner.shape)}, got {sizes}.')
    if not input.swapped:
        return inner
    order = torch.arange(inner.channels, device=inner.device).view(input.groups, -1).t()
    return inner.with_data(inner.data.index_select(1, order.flatten()))
