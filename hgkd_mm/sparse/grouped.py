"""Channels seen as groups, (B, r, C / r, H, W), as split attention (ResNeSt) sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .dispatch import implements, refuse
from .feature_map import SparseFeatureMap


class GroupedMap:
    """What ``map.view(B, r, C // r, H, W)`` gives: it can be weighted and summed over r.

    Args:
        parts: the r groups of channels, maps of one mask and size.
    """

    def __init__(self, parts: list[SparseFeatureMap]) -> None:
        self.parts = parts

    @property
    def shape(self) -> torch.Size:
        """(B, r, C / r, H, W)."""
        batch, channels, height, width = self.parts[0].shape
        return torch.Size((batch, len(self.parts), channels, height, width))

    def sum(self, dim: int) -> SparseFeatureMap:
        """Sum over the groups.

        Raises:
            UnsupportedOpError: ``dim`` is not 1.
        """
        if dim != 1:
            raise refuse('sum', f'grouped channels can be summed over dim=1 only, got dim={dim}.')
        total = self.parts[0]
        for part in self.parts[1:]:
            total = total + part
        return total

    def __mul__(self, weights: Tensor) -> GroupedMap:
        if weights.dim() != 5 or weights.shape[1] != len(self.parts):
            raise refuse(
                'mul',
                f'weights of grouped channels must be (B, {len(self.parts)}, C, 1, 1), got '
                f'{tuple(weights.shape)}.',
            )
        return GroupedMap([part * weights[:, i] for i, part in enumerate(self.parts)])

    __rmul__ = __mul__

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in (torch.mul, Tensor.mul, Tensor.__mul__):
            weights, grouped = args if isinstance(args[1], cls) else reversed(args)
            return grouped * weights
        if func in (torch.sum, Tensor.sum):
            return args[0].sum(*args[1:], **(kwargs or {}))
        raise refuse(func.__name__, 'grouped channels can only be weighted and summed.')


@implements(Tensor.view, Tensor.reshape)
def _view(input: SparseFeatureMap, *shape: Any) -> GroupedMap | SparseFeatureMap:
    sizes = tuple(shape[0]) if isinstance(shape[0], tuple | list) else shape
    batch, channels, *space = input.shape
    if len(sizes) == 5 and sizes[0] == batch and list(sizes[3:]) == space and sizes[1] > 0:
        groups = sizes[1]
        if channels % groups == 0 and sizes[2] in (-1, channels // groups):
            return GroupedMap(input.split([channels // groups] * groups))
    raise refuse(
        'view',
        f'{tuple(input.shape)} can only be seen as (B, groups, C / groups, H, W), got {sizes}.',
    )
