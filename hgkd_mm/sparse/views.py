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
from .norm import axes_of
from .ops import ACTIVATIONS

# Channels last -----------------------------------------------------------------------------


class ChannelsLastMap(TensorLike):
    """What ``map.permute(0, 2, 3, 1)`` gives: the same rows, with the axes in another order.

    Args:
        inner: the map, (B, C, H, W).
    """

    def __init__(self, inner: SparseFeatureMap) -> None:
        self.inner = inner

    @property
    def held(self) -> SparseFeatureMap:
        return self.inner

    @property
    def shape(self) -> torch.Size:
        """(B, H, W, C)."""
        batch, channels, height, width = self.inner.shape
        return torch.Size((batch, height, width, channels))


_on_last = ChannelsLastMap.answers
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def _integers(args: tuple) -> list[int]:
    """Axes or sizes that were given one by one or as one sequence."""
    return list(args[0] if isinstance(args[0], Sequence) else args)


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
    input: ChannelsLastMap,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> ChannelsLastMap:
    if tuple(normalized_shape) != (input.inner.channels,):
        channels, shape = input.inner.channels, tuple(normalized_shape)
        raise refuse('layer_norm', f'only over the {channels} channels of a position, got {shape}.')
    rows = F.layer_norm(input.inner.rows, normalized_shape, weight, bias, eps)
    return ChannelsLastMap(input.inner.with_rows(rows))


@_on_last(torch.norm, Tensor.norm, torch.linalg.vector_norm)
def _norm(
    input: ChannelsLastMap,
    p: float | str = 2,
    dim: Any = None,
    keepdim: bool = False,
    **others: Any,
) -> Tensor:
    args = (input.inner, p, _axes_first(dim), keepdim)
    return _statistic(SparseFeatureMap.__torch_function__(torch.norm, (), args, others))


@_on_last(torch.mean, Tensor.mean)
def _mean(
    input: ChannelsLastMap, dim: Any = None, keepdim: bool = False
) -> Tensor | ChannelsLastMap:
    return _statistic(torch.mean(input.inner, _axes_first(dim), keepdim))


def _axes_first(dim: Any) -> list[int]:
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


_BINARY = torch.add, torch.sub, torch.mul, torch.div, Tensor.add, Tensor.sub, Tensor.mul, Tensor.div
_IN_PLACE = Tensor.add_, Tensor.sub_, Tensor.mul_, Tensor.div_
_OTHERS = torch.pow, Tensor.pow, torch.rsqrt, Tensor.rsqrt, torch.addcmul, Tensor.addcmul
# An in-place op of the view changes the map behind it, as a view of a tensor would.
for _function in (*ACTIVATIONS, *_BINARY, *_IN_PLACE, *_OTHERS, Tensor.detach, Tensor.to):
    _on_last(_function)(partial(_inside, _function))


# Groups of channels ------------------------------------------------------------------------


class GroupedMap(TensorLike):
    """What ``map.view(B, r, C // r, H, W)`` gives: weighted, summed over r, or shuffled.

    Args:
        parts: the r groups of channels, maps of one mask and size.
        swapped: whether the two axes of channels were exchanged, (B, C / r, r, H, W).
    """

    def __init__(self, parts: list[SparseFeatureMap], swapped: bool = False) -> None:
        self.parts = parts
        self.swapped = swapped

    @property
    def held(self) -> SparseFeatureMap:
        return self.parts[0]

    @property
    def shape(self) -> torch.Size:
        """(B, r, C / r, H, W), or (B, C / r, r, H, W) if swapped."""
        batch, channels, height, width = self.parts[0].shape
        sizes = (len(self.parts), channels)
        return torch.Size((batch, *(reversed(sizes) if self.swapped else sizes), height, width))

    def merged(self) -> SparseFeatureMap:
        """The map with all channels in one axis again, in the order of this view."""
        whole = self.parts[0].join([part.data for part in self.parts])
        if not self.swapped:
            return whole
        order = torch.arange(whole.channels, device=whole.device)
        return whole.select(order.view(len(self.parts), -1).t().flatten())


_on_groups = GroupedMap.answers


@_on_groups(torch.sum, Tensor.sum)
def _sum(input: GroupedMap, dim: int | Sequence[int]) -> SparseFeatureMap:
    if dim not in (1, (1,), [1]) or input.swapped:
        raise refuse('sum', f'grouped channels can be summed over dim=1 only, got dim={dim}.')
    total = input.parts[0].share()
    for part in input.parts[1:]:
        total = total + part
    return total


@_on_groups(torch.mul, Tensor.mul)
def _mul(input: GroupedMap | Tensor, other: GroupedMap | Tensor) -> GroupedMap:
    grouped, weights = (input, other) if isinstance(input, GroupedMap) else (other, input)
    count = len(grouped.parts)
    tensor = isinstance(weights, Tensor)
    if not tensor or grouped.swapped or weights.dim() != 5 or weights.shape[1] != count:
        raise refuse(
            'mul',
            f'weights of grouped channels must be (B, {count}, C, 1, 1), got '
            f'{tuple(weights.shape) if tensor else weights}.',
        )
    return GroupedMap([part * weights[:, i] for i, part in enumerate(grouped.parts)])


@_on_groups(torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes)
def _transpose(input: GroupedMap, dim0: int, dim1: int) -> GroupedMap:
    if sorted((dim0 % 5, dim1 % 5)) != [1, 2]:
        raise refuse('transpose', f'only the two axes of channels, 1 and 2; got {dim0}, {dim1}.')
    return GroupedMap(input.parts, not input.swapped)


@_on_groups(Tensor.permute, torch.permute)
def _permute_groups(input: GroupedMap, *dims: Any) -> GroupedMap:
    if _integers(dims) != [0, 2, 1, 3, 4]:
        raise refuse('permute', f'only the two axes of channels, 1 and 2; got {dims}.')
    return GroupedMap(input.parts, not input.swapped)


@_on_groups(Tensor.contiguous)
def _contiguous_groups(input: GroupedMap) -> GroupedMap:
    return input


@_on_groups(Tensor.view, Tensor.reshape, torch.reshape)
def _merge(input: GroupedMap, *shape: Any) -> SparseFeatureMap:
    sizes = _integers(shape)
    whole = input.parts[0].shape
    channels = len(input.parts) * whole[1]
    merged = (whole[0], channels, *whole[2:])
    if len(sizes) != 4 or any(s not in (-1, w) for s, w in zip(sizes, merged, strict=True)):
        raise refuse('view', f'{tuple(input.shape)} can only be seen as {merged}, got {sizes}.')
    return input.merged()


@_on_groups(torch.flatten, Tensor.flatten)
def _flatten(input: GroupedMap, start_dim: int = 0, end_dim: int = -1) -> SparseFeatureMap:
    if (start_dim, end_dim) != (1, 2):
        raise refuse('flatten', f'only the axes of channels, 1 and 2; got {start_dim}, {end_dim}.')
    return input.merged()


@SparseFeatureMap.answers(torch.stack)
def _stack(tensors: Sequence[SparseFeatureMap], dim: int = 0) -> GroupedMap:
    first = tensors[0]
    alike = all(
        type(t) is type(first) and t.mask is first.mask and t.shape == first.shape for t in tensors
    )
    if dim != 1 or not alike:
        raise refuse('stack', 'maps of one size from one sparsify call, along dim=1 only.')
    return GroupedMap([t.share() for t in tensors])


@SparseFeatureMap.answers(Tensor.view, Tensor.reshape, torch.reshape)
def _view(input: SparseFeatureMap, *shape: Any) -> GroupedMap:
    sizes = _integers(shape)
    batch, channels, *space = input.shape
    if len(sizes) == 5 and sizes[0] in (batch, -1) and sizes[3:] == space:
        groups, each = sizes[1:3]
        if groups == -1 and each > 0:
            groups = channels // each
        if groups > 0 and channels % groups == 0 and each in (-1, channels // groups):
            return GroupedMap(input.parts([channels // groups] * groups))
    raise refuse(
        'view', f'only as (B, groups, C / groups, H, W) of {tuple(input.shape)}, got {sizes}.'
    )


@SparseFeatureMap.answers(Tensor.unflatten, torch.unflatten)
def _unflatten(input: SparseFeatureMap, dim: int, sizes: Sequence[int]) -> GroupedMap:
    if dim % 4 != 1 or len(sizes) != 2:
        raise refuse('unflatten', f'only the channels into two axes, got dim={dim} and {sizes}.')
    return _view(input, input.shape[0], *sizes, *input.shape[2:])
