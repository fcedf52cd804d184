"""Hooks, optimizer wrappers and layer decay; importing this registers them."""

from typing import Any

from .evaluation_hooks import KNNEvalHook, OtherClassesError, SameClassesHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .non_finite_hook import NonFiniteError, NonFiniteLossHook
from .optim_wrapper import BF16OptimWrapper
from .weights_hooks import (
    IncompleteCheckpointError,
    PretrainedReportHook,
    PretrainedWeightsError,
    WholeCheckpointHook,
)

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


def __getattr__(name: str) -> Any:
    """``ExportBackboneHook``, which was here before; training does not import the exports."""
    if name != 'ExportBackboneHook':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from hgkd_mm.export import ExportBackboneHook

    return ExportBackboneHook
