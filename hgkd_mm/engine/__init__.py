"""Hooks, optimizer wrappers and layer decay; importing this registers them."""

from .hooks import (
    ExportBackboneHook,
    IncompleteCheckpointError,
    KNNEvalHook,
    NonFiniteError,
    NonFiniteLossHook,
    OtherClassesError,
    PretrainedReportHook,
    PretrainedWeightsError,
    SameClassesHook,
    WholeCheckpointHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .optim_wrapper import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'ExportBackboneHook',
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
