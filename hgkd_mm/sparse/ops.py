"""Functions of single values and of channels on a SparseFeatureMap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import refuse
from .feature_map import SparseFeatureMap

Operand = SparseFeatureMap | Tensor | float | int
_on_map = SparseFeatureMap.answers

# Pointwise functions -----------------------------------------------------------------------


def named(source: Any, *names: str) -> list[Callable]:
    """The functions of these names."""
    return [getattr(source, name) for name in names]


_FORMS = ('relu', 'sigmoid', 'tanh', 'neg', 'abs', 'square', 'exp', 'clamp')
_SINGULAR_FORMS = ('sqrt', 'rsqrt', 'pow', 'log', 'reciprocal')
ACTIVATIONS = (
    *named(F, 'relu', 'relu6', 'hardtanh', 'leaky_relu', 'elu', 'gelu', 'silu', 'mish', 'sigmoid'),
    *named(F, 'hardsigmoid', 'hardswish', 'softplus', 'dropout', 'selu', 'logsigmoid', 'softsign'),
    *named(torch, *_FORMS),
    *named(Tensor, *_FORMS, 'clone', 'float', 'double', 'half', 'bfloat16'),
)
# Their slope is infinite at zero, which is what hidden positions hold in the dense engine.
_SINGULAR = (*named(torch, *_SINGULAR_FORMS), *named(Tensor, *_SINGULAR_FORMS))


def hardtanh(
    values: Tensor, min_val: float = -1.0, max_val: float = 1.0, *, inplace: bool = False
) -> Tensor:
    """``F.hardtanh`` whose gradient reads the result, which the next layer saves anyway.

    torch's own saves the input, and a copy of it where it is overwritten.
    """
    out = _Hardtanh.apply(values, min_val, max_val, inplace)
    # Maps do not write to views: unlike with torch's own, the gradient needs the result unchanged.
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


# The gradient of these needs the result only, so that the input's memory can hold it.
_CHANGING: dict[Callable, Callable] = {
    F.relu: torch.relu_,
    torch.relu: torch.relu_,
    relu6: partial(relu6, inplace=True),
    hardtanh: partial(hardtanh, inplace=True),
    torch.add: Tensor.add_,
    torch.sub: Tensor.sub_,
}


def _changing(function: Callable, target: SparseFeatureMap, inplace: bool) -> Callable:
    """The function that writes to the map's memory, where it may; else the function itself."""
    return _CHANGING.get(function, function) if inplace and target.may_change() else function


def _activation(
    function: Callable, input: SparseFeatureMap, *args: Any, inplace: bool = False, **kwargs: Any
) -> SparseFeatureMap:
    function = _changing(function, input, inplace)
    out = input.pointwise(lambda values: function(values, *args, **kwargs))
    return _store(input, out) if inplace else out


def _singular(function: Callable, input: SparseFeatureMap, *args: Any) -> SparseFeatureMap:
    return input.with_rows(function(input.rows, *args))


def _store(target: SparseFeatureMap, result: SparseFeatureMap) -> SparseFeatureMap:
    """Ends an in-place op, whether or not it could be computed in place."""
    data = result.data.to(target.dtype)
    if data is not target.data:
        target.data, target.shared = data, False
    return target


for _function in ACTIVATIONS:
    _on_map(_function)(partial(_activation, _function))
for _function in _SINGULAR:
    _on_map(_function)(partial(_singular, _function))
_on_map(F.relu6)(partial(_activation, relu6))
_on_map(F.hardtanh)(partial(_activation, hardtanh))
_on_map(torch.relu_, Tensor.relu_, F.relu_)(partial(_activation, torch.relu, inplace=True))
_on_map(torch.sigmoid_, Tensor.sigmoid_)(partial(_activation, torch.sigmoid, inplace=True))


@_on_map(Tensor.detach)
def _detach(input: SparseFeatureMap) -> SparseFeatureMap:
    out = input.share()
    out.data = out.data.detach()
    return out


@_on_map(Tensor.to)
def _to(input: SparseFeatureMap, *args: Any, **kwargs: Any) -> SparseFeatureMap:
    kwargs = {key: value for key, value in kwargs.items() if key != 'memory_format'}
    if not args and not kwargs:
        return input
    device = input.data[:0].to(*args, **kwargs).device
    if device != input.device:
        raise refuse('to', f'move the images to {device} before sparsify; the mask follows.')
    return input.pointwise(lambda values: values.to(*args, **kwargs))


@_on_map(Tensor.is_contiguous)
def _is_contiguous(input: SparseFeatureMap, memory_format: Any = None) -> bool:
    # nn.SyncBatchNorm calls this; its autograd function would cut the gradient of a map.
    raise refuse(
        'is_contiguous',
        'a SparseFeatureMap has no strides. For SyncBatchNorm call '
        'hgkd_mm.sparse.prepare(network) first (not sync_bn of the runner).',
    )


@_on_map(Tensor.contiguous)
def _contiguous(input: SparseFeatureMap, memory_format: Any = None) -> SparseFeatureMap:
    return input


# Two operands ------------------------------------------------------------------------------


def same_kind(one: Any, other: SparseFeatureMap) -> bool:
    """Whether both are maps of one sparsify call and of one size."""
    return type(one) is type(other) and one.mask is other.mask and one.tile == other.tile


def _binary(
    function: Callable, input: Operand, other: Operand, inplace: bool = False, **kwargs: Any
) -> SparseFeatureMap:
    name = function.__name__
    if not isinstance(input, SparseFeatureMap):
        if inplace:
            raise refuse(name, 'a tensor cannot be changed by a SparseFeatureMap.')
        return _apply(lambda a, b: function(b, a, **kwargs), other, input, name)
    function = _changing(function, input, inplace)
    out = _apply(lambda a, b: function(a, b, **kwargs), input, other, name)
    return _store(input, out) if inplace else out


def _apply(
    function: Callable[[Any, Any], Tensor], target: SparseFeatureMap, other: Operand, name: str
) -> SparseFeatureMap:
    if isinstance(other, SparseFeatureMap):
        if not same_kind(other, target) or other.channels not in (target.channels, 1):
            shapes = f'{tuple(target.shape)} and {tuple(other.shape)}'
            raise refuse(name, f'maps of {shapes} must be of one size, from one sparsify call.')
        return target.pointwise(function, other.data)
    if isinstance(other, Tensor) and other.dim() > 0:
        shape = (1,) * (4 - other.dim()) + tuple(other.shape)
        if len(shape) > 4 or any(o not in (1, t) for o, t in zip(shape, target.shape, strict=True)):
            raise refuse(name, f'{tuple(target.shape)} and {tuple(other.shape)} do not broadcast.')
        return target.pointwise(function, target.operand(other.reshape(shape)))
    return target.pointwise(lambda values: function(values, other))


def _divide(input: Operand, other: Operand) -> SparseFeatureMap:
    """Division; by a map of visible positions only, since 1 / 0 has no gradient to be masked."""
    if not isinstance(other, SparseFeatureMap):
        return _binary(torch.div, input, other)
    return torch.mul(other.with_rows(other.rows.reciprocal()), input)


for _name in ('add', 'sub', 'mul'):
    _function = getattr(torch, _name)
    _on_map(_function, getattr(Tensor, _name))(partial(_binary, _function))
    _on_map(getattr(Tensor, f'{_name}_'))(partial(_binary, _function, inplace=True))
_on_map(torch.div, Tensor.div, torch.true_divide, Tensor.__truediv__)(_divide)
_on_map(Tensor.div_)(partial(_binary, torch.div, inplace=True))
_on_map(Tensor.__add__, Tensor.__radd__)(partial(_binary, torch.add))
_on_map(Tensor.__mul__, Tensor.__rmul__)(partial(_binary, torch.mul))
_on_map(Tensor.__sub__)(partial(_binary, torch.sub))


@_on_map(torch.addcmul, Tensor.addcmul)
def _addcmul(input: Operand, tensor1: Operand, tensor2: Operand, *, value: float = 1) -> Operand:
    return input + tensor1 * tensor2 * value if value != 1 else input + tensor1 * tensor2


@_on_map(Tensor.expand_as)
def _expand_as(input: Tensor, other: SparseFeatureMap) -> Tensor:
    """A weight per image and channel needs no copy for each position: it broadcasts as it is."""
    if not isinstance(input, Tensor) or tuple(input.shape[-2:]) != (1, 1):
        raise refuse('expand_as', 'only (B, C, 1, 1) can be expanded to a SparseFeatureMap.')
    return input


def _new(method: Callable, input: SparseFeatureMap, *args: Any, **kwargs: Any) -> Tensor:
    """A plain tensor of the map's type and device (drop path draws its mask so)."""
    return method(input.data, *args, **kwargs)


for _method in named(Tensor, 'new_empty', 'new_full', 'new_ones', 'new_tensor', 'new_zeros'):
    _on_map(_method)(partial(_new, _method))


# Channels ----------------------------------------------------------------------------------


@_on_map(torch.cat, torch.concat)
def _cat(tensors: Sequence[SparseFeatureMap], dim: int = 0) -> SparseFeatureMap:
    first = next(t for t in tensors if isinstance(t, SparseFeatureMap))
    if dim % 4 != 1 or not all(same_kind(t, first) for t in tensors):
        raise refuse('cat', f'maps of one size from one sparsify call, along dim=1; got dim={dim}.')
    return first.with_data(torch.cat([part.data for part in tensors], dim=1))


@_on_map(torch.split, Tensor.split)
def _split(
    input: SparseFeatureMap, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[SparseFeatureMap, ...]:
    if dim % 4 != 1:
        raise refuse('split', f'maps can only be split along the channels, dim=1; got dim={dim}.')
    parts = torch.split(input.data, split_size_or_sections, dim=1)
    return tuple(input.with_data(part) for part in parts)


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
    chosen = torch.arange(*channels.indices(input.channels), device=input.device)
    return input.with_data(input.data.index_select(1, chosen))
