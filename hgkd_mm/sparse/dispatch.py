"""Which torch functions a SparseFeatureMap answers, and what it says of the others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from torch import nn

HANDLERS: dict[Callable, Callable] = {}


class UnsupportedOpError(NotImplementedError):
    """A network called something on a SparseFeatureMap that has no exact sparse meaning here."""


def implements(*functions: Callable) -> Callable[[Callable], Callable]:
    """Registers a handler that answers these torch functions with the same arguments."""

    def register(handler: Callable) -> Callable:
        for function in functions:
            HANDLERS[function] = handler
        return handler

    return register


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
