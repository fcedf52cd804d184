"""How stand-ins for tensors answer torch functions, and what they say of those they don't know."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class UnsupportedOpError(NotImplementedError):
    """A network called something on a SparseFeatureMap that has no exact sparse meaning here."""


def refuse(op: str, why: str) -> UnsupportedOpError:
    """The error for an op that can't be answered; it names the op and the calling layer."""
    return UnsupportedOpError(f'{op} in layer {calling_layer()}: {why}')


def calling_layer() -> str:
    """Qualified name and class of the innermost nn.Module on the call stack.

    The stack is read only to word an error, never in a forward pass that succeeds.
    """
    modules: list[nn.Module] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        owner = frame.f_locals.get('self')
        if isinstance(owner, nn.Module) and (not modules or owner is not modules[-1]):
            modules.append(owner)
        frame = frame.f_back
    if not modules:
        return '(outside any module)'
    layer = modules[0]
    for root in reversed(modules):
        for name, module in root.named_modules():
            if module is layer:
                return f"'{name or '(root)'}' ({type(layer).__name__})"
    return f'({type(layer).__name__})'


def _name(function: Callable) -> str:
    return getattr(function, '__qualname__', None) or getattr(function, '__name__', str(function))


def _refuse_reentrance(op: str) -> None:
    """Stops reentrant checkpointing, which would cut the gradient of a map without a word."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        where = frame.f_code.co_filename.replace(os.sep, '/')
        if frame.f_code.co_name == 'forward' and where.endswith('torch/utils/checkpoint.py'):
            raise refuse(
                op,
                'reentrant activation checkpointing would lose the gradient of a '
                'SparseFeatureMap; call hgkd_mm.sparse.prepare(network) first, or switch the '
                "network's checkpointing off.",
            )
        frame = frame.f_back


class TensorLike:
    """Answers torch functions, tensor methods and ``+ - * /`` from a table of handlers.

    Each kind of stand-in has its own table; a handler takes the arguments of the function that
    it answers. What the table lacks is refused with the name of the op and the layer.
    """

    handlers: ClassVar[dict[Callable, Callable]]
    kind: ClassVar[str]

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
                f'a {cls.kind} does not know this op. Run the network dense, or add a '
                f'handler ({cls.kind}.answers) in hgkd_mm/sparse.',
            )
        if not torch.is_grad_enabled():
            _refuse_reentrance(_name(func))
        try:
            return handler(*args, **(kwargs or {}))
        except TypeError as error:
            # An argument that the handler does not take, or a type that torch does not.
            raise UnsupportedOpError(str(refuse(_name(func), f'{error}.'))) from error

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Shape of the dense tensor this stands for, or its extent along ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of dimensions of the dense tensor."""
        return len(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions of the dense tensor."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of values of the dense tensor."""
        return self.shape.numel()

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name in ('data', 'inner'):
            raise AttributeError(name)
        method = getattr(Tensor, name, None)
        if method is None:
            raise AttributeError(f'{self.kind} has no attribute {name!r}.')
        if not callable(method):
            raise refuse(f'Tensor.{name}', f'a {self.kind} does not have this attribute.')

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.__torch_function__(method, (type(self),), (self, *args), kwargs)

        return call

    def __add__(self, other: Any) -> Any:
        return torch.add(self, other)

    def __sub__(self, other: Any) -> Any:
        return torch.sub(self, other)

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)

    def __truediv__(self, other: Any) -> Any:
        return torch.div(self, other)

    def __pow__(self, exponent: Any) -> Any:
        return torch.pow(self, exponent)

    def __neg__(self) -> Any:
        return torch.neg(self)

    def __getitem__(self, key: Any) -> Any:
        return self.__torch_function__(Tensor.__getitem__, (type(self),), (self, key))

    def _no_operator(self, *_: Any) -> Any:
        raise refuse('operator', f'a {self.kind} has + - * / only; compare or index rows.')

    __matmul__ = __bool__ = __len__ = __setitem__ = _no_operator
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no_operator
    __hash__ = object.__hash__

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Any:
        return torch.neg(self) + other

    __rtruediv__ = _no_operator

    def __iadd__(self, other: Any) -> Any:
        return self.add_(other)

    def __isub__(self, other: Any) -> Any:
        return self.sub_(other)

    def __imul__(self, other: Any) -> Any:
        return self.mul_(other)

    def __itruediv__(self, other: Any) -> Any:
        return self.div_(other)
