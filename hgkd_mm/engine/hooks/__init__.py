"""Hooks: evaluation while training, and safety."""

from .knn_hook import KNNEvalHook
from .non_finite_hook import NonFiniteError, NonFiniteLossHook
from .whole_checkpoint_hook import IncompleteCheckpointError, WholeCheckpointHook

__all__ = [
    'IncompleteCheckpointError',
    'KNNEvalHook',
    'NonFiniteError',
    'NonFiniteLossHook',
    'WholeCheckpointHook',
]
