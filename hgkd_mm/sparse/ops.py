"""What each torch function of single values means on a SparseFeatureMap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .clamp import hardtanh, relu6
from .dispatch import refuse
from .feature_map import SparseFeatureMap

Operand = SparseFeatureMap | Tensor | float | int
_on_map = SparseFeatureMap.answers

ACTIVATIONS: tuple[Callable, ...] = (
    F.relu,
    F.relu6,
    F.hardtanh,
    F.leaky_relu,
    F.elu,
    F.gelu,
    F.silu,
    F.mish,
    F.sigmoid,
    F.hardsigmoid,
    F.hardswish,
    F.softplus,
    F.dropout,
    F.selu,
    F.logsigmoid,
    F.softsign,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    torch.neg,
    torch.abs,
    torch.square,
    torch.exp,
    torch.clamp,
    Tensor.relu,
    Tensor.sigmoid,
    Tensor.tanh,
    Tensor.neg,
    Tensor.abs,
    Tensor.square,
    Tensor.exp,
    Tensor.clamp,
    Tensor.clone,
    Tensor.float,
    Tensor.double,
    Tensor.half,
    Tensor.bfloat16,
)


# Their slope is infinite at zero, which is what hidden positions hold in the dense engine.
_SINGULAR: tuple[Callable, ...] = (
    torch.sqrt,
    torch.rsqrt,
    torch.pow,
    torch.log,
    torch.reciprocal,
    Tensor.sqrt,
    Tensor.rsqrt,
    Tensor.pow,
    Tensor.log,
    Tensor.reciprocal,
)


def _singular(function: Callable, input: SparseFeatureMap, *args: Any) -> SparseFeatureMap:
    return input.with_rows(function(input.rows, *args))


# Those whose gradient needs the result only, so that the input's memory can hold it.
_CHANGING: dict[Callable, Callable] = {
    F.relu: torch.relu_,
    torch.relu: torch.relu_,
    relu6: partial(relu6, inplace=True),
    hardtanh: partial(hardtanh, inplace=True),
    torch.add: Tensor.add_,
    torch.sub: Tensor.sub_,
}


def _activation(
    function: Callable, input: SparseFeatureMap, *args: Any, inplace: bool = False, **kwargs: Any
) -> SparseFeatureMap:
    if inplace and function in _CHANGING and input.may_change():
        function = _CHANGING[function]
    out = input.pointwise(lambda values: function(values, *args, **kwargs))
    return _store(input, out) if inplace else out


def _store(target: SparseFeatureMap, result: SparseFeatureMap) -> SparseFeatureMap:
    """Ends an in-place op, whether or not it could be computed in place."""
    data = result.data.to(target.dtype)
    if data is not target.data:
        target.data, target.shared = data, False
    return target


for _function in ACTIVATIONS:
    _on_map(_function)(partial(_activation, _function))
for _function, _ours in ((F.relu6, relu6), (F.hardtanh, hardtanh)):
    _on_map(_function)(partial(_activation, _ours))
for _function in _SINGULAR:
    _on_map(_function)(partial(_singular, _function))
for _function, _inplace in ((torch.relu, torch.relu_), (torch.sigmoid, torch.sigmoid_)):
    _on_map(_inplace)(partial(_activation, _function, inplace=True))
_on_map(Tensor.relu_)(partial(_activation, torch.relu, inplace=True))
_on_map(F.relu_)(partial(_activation, torch.relu, inplace=True))
_on_map(Tensor.sigmoid_)(partial(_activation, torch.sigmoid, inplace=True))


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


@_on_map(F.prelu, torch.prelu)
def _prelu(input: SparseFeatureMap, weight: Tensor) -> SparseFeatureMap:
    slope = input.operand(weight.reshape(1, -1, 1, 1))
    return input.pointwise(lambda values, s: torch.where(values > 0, values, values * s), slope)


@_on_map(Tensor.is_contiguous)
def _is_contiguous(input: SparseFeatureMap, memory_format: Any = None) -> bool:
    # Asked by nn.SyncBatchNorm, whose autograd function would cut the gradient of a map.
    raise refuse(
        'is_contiguous',
        'a SparseFeatureMap has no strides. For SyncBatchNorm call '
        'hgkd_mm.sparse.prepare(network) first (not sync_bn of the runner).',
    )


@_on_map(Tensor.contiguous)
def _contiguous(input: SparseFeatureMap, memory_format: Any = None) -> SparseFeatureMap:
    return input


# Two operands ------------------------------------------------------------------------------


def _binary(
    function: Callable, input: Operand, other: Operand, inplace: bool = False, **kwargs: Any
) -> SparseFeatureMap:
    if not isinstance(input, SparseFeatureMap):
        if inplace:
            raise refuse(function.__name__, 'a tensor cannot be changed by a SparseFeatureMap.')
        return _apply(lambda a, b: function(b, a, **kwargs), other, input, function.__name__)
    name = function.__name__
    if inplace and function in _CHANGING and input.may_change():
        function = _CHANGING[function]
    out = _apply(lambda a, b: function(a, b, **kwargs), input, other, name)
    return _store(input, out) if inplace else out


def _apply(
    function: Callable[[Any, Any], Tensor], target: SparseFeatureMap, other: Operand, name: str
) -> SparseFeatureMap:
    if isinstance(other, SparseFeatureMap):
        if type(other) is not type(target) or other.mask is not target.mask:
            raise refuse(name, 'both maps must come from one sparsify call (same mask and engine).')
        if other.tile != target.tile or other.channels not in (target.channels, 1):
            raise refuse(name, f'shapes {tuple(target.shape)} and {tuple(other.shape)} differ.')
        return target.pointwise(function, other.data)
    if isinstance(other, Tensor) and other.dim() > 0:
        shape = (1,) * (4 - other.dim()) + tuple(other.shape)
        fits = other.dim() <= 4 and all(
            o in (1, t) for o, t in zip(shape, target.shape, strict=True)
        )
        if not fits:
            raise refuse(
                name, f'shapes {tuple(target.shape)} and {tuple(other.shape)} do not broadcast.'
            )
        return target.pointwise(function, target.operand(other.reshape(shape)))
    return target.pointwise(lambda values: function(values, other))


def _divide(input: Operand, other: Operand) -> SparseFeatureMap:
    """Where a map divides, hidden positions must not: 1 / 0 has no gradient to be masked."""
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


for _method in (
    Tensor.new_empty,
    Tensor.new_full,
    Tensor.new_ones,
    Tensor.new_tensor,
    Tensor.new_zeros,
):
    _on_map(_method)(partial(_new, _method))
