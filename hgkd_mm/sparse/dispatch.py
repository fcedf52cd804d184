"""Stand-ins for tensors: how torch functions reach them, and the error for unknown ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from operator import attrgetter
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class UnsupportedOpError(NotImplementedError):
    """An op that has no exact sparse meaning here was called on a SparseFeatureMap."""


def refuse(op: str, why: str) -> UnsupportedOpError:
    """The error for an op that is not supported; it names the op and the calling layer."""
    return UnsupportedOpError(f'{op} in layer {_calling_layer()}: {why}')


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _calling_layer() -> str:
    """Qualified name and class of the innermost nn.Module on the call stack."""
    owners = (frame.f_locals.get('self') for frame in _frames())
    modules = [owner for owner in owners if isinstance(owner, nn.Module)]
    if not modules:
        return '(outside any module)'
    layer = modules[0]
    names = (
        name for root in reversed(modules) for name, one in root.named_modules() if one is layer
    )
    return f"'{next(names) or '(root)'}' ({type(layer).__name__})"


def _refuse_reentrance(op: str) -> None:
    """Stops reentrant checkpointing, which would silently cut the gradient of a map."""
    for frame in _frames():
        where = frame.f_code.co_filename.replace(os.sep, '/')
        if frame.f_code.co_name == 'forward' and where.endswith('torch/utils/checkpoint.py'):
            raise refuse(
                op,
                'reentrant activation checkpointing would lose the gradient of a '
                'SparseFeatureMap; call hgkd_mm.sparse.prepare(network) first, or switch the '
                "network's checkpointing off.",
            )


def _operator(function: Callable) -> Callable:
    return lambda self, *others: function(self, *others)


class TensorLike:
    """Implements torch functions, tensor methods and ``+ - * /`` by a table of handlers.

    Each kind of stand-in has its own table; a handler takes the arguments of the function that
    it implements. Other functions raise an error that names the op and the layer.
    """

    # Filled by ops.py, norm.py, views.py and window_ops.py, where a call goes on: that of an
    # nn.Conv2d in window_ops._conv2d.
    handlers: ClassVar[dict[Callable, Callable]]
    kind: ClassVar[str]
    # What holds the values: a tensor, or another stand-in.
    held: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if TensorLike in cls.__bases__:
            cls.handlers, cls.kind = {}, cls.__name__

    @classmethod
    def answers(cls, *functions: Callable) -> Callable[[Callable], Callable]:
        """Registers a handler for these torch functions."""

        def register(handler: Callable) -> Callable:
            cls.handlers.update(dict.fromkeys(functions, handler))
            return handler

        return register

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        handler = cls.handlers.get(func)
        if handler is None:
            raise refuse(
                _name(func),
                f'a {cls.kind} has no such op. Run the network dense, or add a '
                f'handler ({cls.kind}.answers) in hgkd_mm/sparse.',
            )
        if not torch.is_grad_enabled():
            _refuse_reentrance(_name(func))
        try:
            return handler(*args, **(kwargs or {}))
        except TypeError as error:
            # An argument that the handler does not take, or a type that torch does not.
            raise UnsupportedOpError(str(refuse(_name(func), f'{error}.'))) from error

    # Properties of the dense tensor that this stands for ------------------------------------

    dtype = property(attrgetter('held.dtype'))
    device = property(attrgetter('held.device'))
    is_cuda = property(attrgetter('held.is_cuda'))
    requires_grad = property(attrgetter('held.requires_grad'))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self.shape.numel()

    # Methods and operators of tensors --------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name in ('data', 'held'):
            raise AttributeError(name)
        method = getattr(Tensor, name, None)
        if method is None:
            raise AttributeError(f'{self.kind} has no attribute {name!r}.')
        if not callable(method):
            raise refuse(f'Tensor.{name}', f'a {self.kind} does not have this attribute.')

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.__torch_function__(method, (type(self),), (self, *args), kwargs)

        return call

    __add__ = __radd__ = _operator(torch.add)
    __sub__ = _operator(torch.sub)
    __rsub__ = _operator(lambda self, other: torch.neg(self) + other)
    __mul__ = __rmul__ = _operator(torch.mul)
    __truediv__ = _operator(torch.div)
    __pow__ = _operator(torch.pow)
    __neg__ = _operator(torch.neg)
    __iadd__ = _operator(lambda self, other: self.add_(other))
    __isub__ = _operator(lambda self, other: self.sub_(other))
    __imul__ = _operator(lambda self, other: self.mul_(other))
    __itruediv__ = _operator(lambda self, other: self.div_(other))

    def __getitem__(self, key: Any) -> Any:
        return self.__torch_function__(Tensor.__getitem__, (type(self),), (self, key))

    def _no_operator(self, *_: Any) -> Any:
        raise refuse('operator', f'a {self.kind} has + - * / only; compare or index rows.')

    __matmul__ = __bool__ = __len__ = __setitem__ = __rtruediv__ = _no_operator
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no_operator
    __hash__ = object.__hash__


def _name(function: Callable) -> str:
    return getattr(function, '__qualname__', None) or getattr(function, '__name__', str(function))
