"""A map with its channels last, (B, H, W, C), as ConvNeXt sees it between its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import TensorLike, refuse
from .feature_map import SparseFeatureMap
from .ops import ACTIVATIONS
from .statistics import axes_of


class ChannelsLastMap(TensorLike):
    """What ``map.permute(0, 2, 3, 1)`` gives: the same rows, with the axes named otherwise.

    Args:
        inner: the map, (B, C, H, W).
    """

    def __init__(self, inner: SparseFeatureMap) -> None:
        self.inner = inner

    @property
    def shape(self) -> torch.Size:
        """(B, H, W, C)."""
        batch, channels, height, width = self.inner.shape
        return torch.Size((batch, height, width, channels))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        """Where the values live."""
        return self.inner.device

    @property
    def is_cuda(self) -> bool:
        """Whether the values live on a CUDA device."""
        return self.inner.is_cuda

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow through the values."""
        return self.inner.requires_grad


_on_last = ChannelsLastMap.answers
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def _order(dims: tuple) -> list[int]:
    return [d % 4 for d in (dims[0] if isinstance(dims[0], Sequence) else dims)]


@SparseFeatureMap.answers(Tensor.permute, torch.permute)
def _permute(input: SparseFeatureMap, *dims: Any) -> ChannelsLastMap:
    if _order(dims) != _LAST:
        raise refuse('permute', f'only to (B, H, W, C), by (0, 2, 3, 1); got {dims}.')
    return ChannelsLastMap(input)


@_on_last(Tensor.permute, torch.permute)
def _permute_back(input: ChannelsLastMap, *dims: Any) -> SparseFeatureMap:
    if _order(dims) != _FIRST:
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
        raise refuse(
            'layer_norm',
            f'only over the {input.inner.channels} channels of each position, got '
            f'{tuple(normalized_shape)}.',
        )
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


def _same(function: Callable, input: ChannelsLastMap, *args: Any, **kwargs: Any) -> Any:
    """Applies a function of single values to the map inside."""
    out = SparseFeatureMap.__torch_function__(function, (), (input.inner, *args), kwargs)
    return input if out is input.inner else ChannelsLastMap(out)


def _two(function: Callable, input: Any, other: Any, **kwargs: Any) -> ChannelsLastMap:
    """Applies a function of two operands that broadcast from the channels, the last axis."""
    first, second = _channels_first(input), _channels_first(other)
    out = SparseFeatureMap.__torch_function__(function, (), (first, second), kwargs)
    return ChannelsLastMap(out)


def _channels_first(operand: Any) -> Any:
    if isinstance(operand, ChannelsLastMap):
        return operand.inner
    if isinstance(operand, Tensor) and operand.dim() > 0:
        return operand.reshape((1,) * (4 - operand.dim()) + tuple(operand.shape)).permute(_FIRST)
    return operand


@_on_last(torch.addcmul, Tensor.addcmul)
def _addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> ChannelsLastMap:
    operands = (_channels_first(operand) for operand in (input, tensor1, tensor2))
    return ChannelsLastMap(torch.addcmul(*operands, value=value))


for _function in (
    *ACTIVATIONS,
    Tensor.detach,
    torch.pow,
    Tensor.pow,
    torch.rsqrt,
    Tensor.rsqrt,
    Tensor.to,
):
    _on_last(_function)(partial(_same, _function))
for _name in ('add', 'sub', 'mul', 'div'):
    for _function in (getattr(torch, _name), getattr(Tensor, _name)):
        _on_last(_function)(partial(_two, _function))
    # An in-place op of the view changes the map behind it, as a view of a tensor would.
    _on_last(getattr(Tensor, f'{_name}_'))(partial(_two, getattr(Tensor, f'{_name}_')))
