"""What each torch function means on a SparseFeatureMap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import implements, refuse
from .feature_map import SparseFeatureMap
from .window import Window, pair

Operand = SparseFeatureMap | Tensor | float | int


def _geometry(op: str, make: Callable[[], Any]) -> Any:
    """Runs ``make``, naming op and layer if the geometry does not fit the mask's cells."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(str(refuse(op, str(error)))) from error


# Convolution and pooling -------------------------------------------------------------------


@implements(torch.conv2d, F.conv2d)
def _conv2d(
    input: SparseFeatureMap,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> SparseFeatureMap:
    def run() -> SparseFeatureMap:
        if weight.shape[1] * groups != input.channels:
            raise ValueError(
                f'the weight {tuple(weight.shape)} with {groups} groups wants '
                f'{weight.shape[1] * groups} channels, the map has {input.channels}.'
            )
        window = Window.of(tuple(weight.shape[-2:]), stride, padding, dilation)
        return input.conv2d(weight, bias, window, groups)

    return _geometry('conv2d', run)


@implements(torch.max_pool2d, F.max_pool2d)
def _max_pool2d(
    input: SparseFeatureMap,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> SparseFeatureMap:
    window = Window.of(kernel_size, stride or kernel_size, padding, dilation, ceil_mode)
    return _geometry('max_pool2d', lambda: input.max_pool2d(window))


@implements(F.avg_pool2d)
def _avg_pool2d(
    input: SparseFeatureMap,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> SparseFeatureMap:
    window = Window.of(kernel_size, stride or kernel_size, padding, 1, ceil_mode)
    if divisor_override is not None:
        raise refuse('avg_pool2d', 'divisor_override is not supported on a SparseFeatureMap.')
    floored = Window.of(kernel_size, stride or kernel_size, padding)
    size = tuple(input.shape[-2:])
    if ceil_mode and window.out_size(size) != floored.out_size(size):
        raise refuse(
            'avg_pool2d',
            f'ceil_mode makes windows of {window.kernel} run over the edge of a map of {size}; '
            'use an image size that is a multiple of the stride.',
        )
    return _geometry('avg_pool2d', lambda: input.avg_pool2d(window, count_include_pad))


@implements(F.adaptive_avg_pool2d)
def _adaptive_avg_pool2d(input: SparseFeatureMap, output_size: int | Sequence[int]) -> Tensor:
    if pair(output_size) != (1, 1):
        raise refuse(
            'adaptive_avg_pool2d',
            f'only global pooling (output size 1) has a sparse meaning, got {output_size}.',
        )
    return input.mean_visible()[:, :, None, None]


@implements(torch.mean, Tensor.mean)
def _mean(input: SparseFeatureMap, dim: Any = None, keepdim: bool = False) -> Tensor:
    axes = sorted(d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ()))
    if axes != [2, 3]:
        raise refuse('mean', f'only the mean over space, dim=(2, 3), is known; got dim={dim}.')
    mean = input.mean_visible()
    return mean[:, :, None, None] if keepdim else mean


# Norms -------------------------------------------------------------------------------------


@implements(F.batch_norm)
def _batch_norm(
    input: SparseFeatureMap,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> SparseFeatureMap:
    rows = input.rows
    # As a channels-last (1, C, R, 1) image: torch's (R, C) path is slower on CPU.
    image = rows.t().unsqueeze(0).unsqueeze(-1)
    out = F.batch_norm(image, running_mean, running_var, weight, bias, training, momentum, eps)
    return input.with_rows(out.squeeze(-1).squeeze(0).t())


# One value at a time -----------------------------------------------------------------------

_ACTIVATIONS: tuple[Callable, ...] = (
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
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    torch.neg,
    Tensor.relu,
    Tensor.sigmoid,
    Tensor.tanh,
    Tensor.neg,
    Tensor.clone,
    Tensor.detach,
    Tensor.float,
    Tensor.double,
    Tensor.half,
    Tensor.bfloat16,
)


def _activation(
    function: Callable, input: SparseFeatureMap, *args: Any, inplace: bool = False, **kwargs: Any
) -> SparseFeatureMap:
    out = input.pointwise(lambda values: function(values, *args, **kwargs))
    return _store(input, out) if inplace else out


def _store(target: SparseFeatureMap, result: SparseFeatureMap) -> SparseFeatureMap:
    """An in-place op: computed out of place, since data may be a view of another op's output."""
    target.data = result.data.to(target.dtype)
    return target


for _function in _ACTIVATIONS:
    implements(_function)(partial(_activation, _function))
for _function, _inplace in ((torch.relu, torch.relu_), (torch.sigmoid, torch.sigmoid_)):
    implements(_inplace)(partial(_activation, _function, inplace=True))
implements(Tensor.relu_)(partial(_activation, torch.relu, inplace=True))
implements(F.relu_)(partial(_activation, torch.relu, inplace=True))
implements(Tensor.sigmoid_)(partial(_activation, torch.sigmoid, inplace=True))


@implements(Tensor.to)
def _to(input: SparseFeatureMap, *args: Any, **kwargs: Any) -> SparseFeatureMap:
    device = input.data[:0].to(*args, **kwargs).device
    if device != input.device:
        raise refuse('to', f'move the images to {device} before sparsify; the mask follows.')
    return input.pointwise(lambda values: values.to(*args, **kwargs))


@implements(Tensor.contiguous)
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
    out = _apply(lambda a, b: function(a, b, **kwargs), input, other, function.__name__)
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


for _name in ('add', 'sub', 'mul', 'div'):
    _function = getattr(torch, _name)
    implements(_function, getattr(Tensor, _name))(partial(_binary, _function))
    implements(getattr(Tensor, f'{_name}_'))(partial(_binary, _function, inplace=True))
implements(Tensor.__add__, Tensor.__radd__)(partial(_binary, torch.add))
implements(Tensor.__mul__, Tensor.__rmul__)(partial(_binary, torch.mul))
implements(Tensor.__sub__)(partial(_binary, torch.sub))
implements(Tensor.__truediv__)(partial(_binary, torch.div))


# Channels ----------------------------------------------------------------------------------


@implements(torch.cat, torch.concat)
def _cat(tensors: Sequence[SparseFeatureMap], dim: int = 0) -> SparseFeatureMap:
    first = next(t for t in tensors if isinstance(t, SparseFeatureMap))
    if dim % 4 != 1:
        raise refuse('cat', f'maps can only be joined along the channels, dim=1; got dim={dim}.')
    for part in tensors:
        if type(part) is not type(first) or part.mask is not first.mask or part.tile != first.tile:
            raise refuse('cat', 'all parts must be maps of one size from one sparsify call.')
    return first.join([part.data for part in tensors])


@implements(torch.split, Tensor.split)
def _split(
    input: SparseFeatureMap, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[SparseFeatureMap, ...]:
    if dim % 4 != 1:
        raise refuse('split', f'maps can only be split along the channels, dim=1; got dim={dim}.')
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        whole, rest = divmod(input.channels, sizes)
        sizes = [sizes] * whole + ([rest] if rest else [])
    return tuple(input.split(list(sizes)))


@implements(torch.chunk, Tensor.chunk)
def _chunk(input: SparseFeatureMap, chunks: int, dim: int = 0) -> tuple[SparseFeatureMap, ...]:
    return _split(input, -(-input.channels // chunks), dim)
