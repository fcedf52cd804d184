"""Hooks, optimizer wrappers and layer decay; importing this registers them."""

from .hooks import KNNEvalHook, NonFiniteError, NonFiniteLossHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .optim_wrapper import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'KNNEvalHook',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteError',
    'NonFiniteLossHook',
]
