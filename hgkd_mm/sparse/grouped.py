"""Channels seen as groups, (B, r, C / r, H, W), as split attention and channel shuffles do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .dispatch import TensorLike, refuse
from .feature_map import SparseFeatureMap


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
def _permute(input: GroupedMap, *dims: Any) -> GroupedMap:
    order = list(dims[0] if isinstance(dims[0], Sequence) else dims)
    if order != [0, 2, 1, 3, 4]:
        raise refuse('permute', f'only the two axes of channels, 1 and 2; got {order}.')
    return GroupedMap(input.parts, not input.swapped)


@_on_groups(Tensor.contiguous)
def _contiguous(input: GroupedMap) -> GroupedMap:
    return input


@_on_groups(Tensor.view, Tensor.reshape, torch.reshape)
def _merge(input: GroupedMap, *shape: Any) -> SparseFeatureMap:
    sizes = tuple(shape[0] if isinstance(shape[0], Sequence) else shape)
    whole = input.parts[0].shape
    channels = len(input.parts) * whole[1]
    wanted = (whole[0], channels, *whole[2:])
    if len(sizes) != 4 or any(s not in (-1, w) for s, w in zip(sizes, wanted, strict=True)):
        raise refuse('view', f'{tuple(input.shape)} can only be seen as {wanted}, got {sizes}.')
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
    sizes = tuple(shape[0] if isinstance(shape[0], Sequence) else shape)
    batch, channels, *space = input.shape
    if len(sizes) == 5 and sizes[0] in (batch, -1) and list(sizes[3:]) == space:
        groups, each = sizes[1:3]
        if groups == -1 and each > 0:
            groups = channels // each
        if groups > 0 and channels % groups == 0 and each in (-1, channels // groups):
            return GroupedMap(input.parts([channels // groups] * groups))
    raise refuse(
        'view',
        f'{tuple(input.shape)} can only be seen as (B, groups, C / groups, H, W), got {sizes}.',
    )


@SparseFeatureMap.answers(Tensor.unflatten, torch.unflatten)
def _unflatten(input: SparseFeatureMap, dim: int, sizes: Sequence[int]) -> GroupedMap:
    if dim % 4 != 1 or len(sizes) != 2:
        raise refuse('unflatten', f'only the channels into two axes, got dim={dim} and {sizes}.')
    return _view(input, input.shape[0], *sizes, *input.shape[2:])
