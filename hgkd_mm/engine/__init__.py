"""Hooks, optimizer wrappers and layer decay; importing this registers them."""

from .hooks.evaluation_hooks import KNNEvalHook, OtherClassesError, SameClassesHook
from .hooks.non_finite_hook import NonFiniteError, NonFiniteLossHook
from .hooks.weights_hooks import (
    IncompleteCheckpointError,
    PretrainedReportHook,
    PretrainedWeightsError,
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
    'OtherClassesError',
    'PretrainedReportHook',
    'PretrainedWeightsError',
    'SameClassesHook',
    'WholeCheckpointHook',
]
