"""Hooks, optimizer wrappers and layer decay; importing this registers them."""

from .hooks import (
    IncompleteCheckpointError,
    KNNEvalHook,
    NonFiniteError,
    NonFiniteLossHook,
    WholeCheckpointHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .optim_wrapper import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'IncompleteCheckpointError',
    'KNNEvalHook',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteError',
    'NonFiniteLossHook',
    'WholeCheckpointHook',
]
