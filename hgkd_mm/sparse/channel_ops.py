"""Joining, taking and reordering the channels of a SparseFeatureMap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .dispatch import refuse
from .feature_map import SparseFeatureMap

_on_map = SparseFeatureMap.answers


@_on_map(torch.cat, torch.concat)
def _cat(tensors: Sequence[SparseFeatureMap], dim: int = 0) -> SparseFeatureMap:
    first = next(t for t in tensors if isinstance(t, SparseFeatureMap))
    if dim % 4 != 1:
        raise refuse('cat', f'maps can only be joined along the channels, dim=1; got dim={dim}.')
    for part in tensors:
        if type(part) is not type(first) or part.mask is not first.mask or part.tile != first.tile:
            raise refuse('cat', 'all parts must be maps of one size from one sparsify call.')
    return first.join([part.data for part in tensors])


@_on_map(torch.split, Tensor.split)
def _split(
    input: SparseFeatureMap, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[SparseFeatureMap, ...]:
    if dim % 4 != 1:
        raise refuse('split', f'maps can only be split along the channels, dim=1; got dim={dim}.')
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        whole, rest = divmod(input.channels, sizes)
        sizes = [sizes] * whole + ([rest] if rest else [])
    return tuple(input.parts(list(sizes)))


@_on_map(torch.chunk, Tensor.chunk)
def _chunk(input: SparseFeatureMap, chunks: int, dim: int = 0) -> tuple[SparseFeatureMap, ...]:
    return _split(input, -(-input.channels // chunks), dim)


@_on_map(Tensor.__getitem__)
def _getitem(input: SparseFeatureMap, key: Any) -> SparseFeatureMap:
    keys = key if isinstance(key, tuple) else (key,)
    space = [k for i, k in enumerate(keys) if i != 1]
    channels = keys[1] if len(keys) > 1 else None
    whole = all(k is Ellipsis or k == slice(None) for k in space) and keys[0] is not Ellipsis
    if not isinstance(channels, slice) or not whole or len(keys) > 4:
        raise refuse('getitem', f'only channels can be taken, as in x[:, 2:8]; got {key}.')
    start, stop, step = channels.indices(input.channels)
    return input.select(torch.arange(start, stop, step, device=input.device))
