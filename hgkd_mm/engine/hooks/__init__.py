"""Hooks: evaluation while training, exports, and safety."""

from .evaluation_hooks import KNNEvalHook, OtherClassesError, SameClassesHook
from .export_backbone_hook import ExportBackboneHook
from .non_finite_hook import NonFiniteError, NonFiniteLossHook
from .weights_hooks import (
    IncompleteCheckpointError,
    PretrainedReportHook,
    PretrainedWeightsError,
    WholeCheckpointHook,
)

__all__ = [
    'ExportBackboneHook',
    'IncompleteCheckpointError',
    'KNNEvalHook',
    'NonFiniteError',
    'NonFiniteLossHook',
    'OtherClassesError',
    'PretrainedReportHook',
    'PretrainedWeightsError',
    'SameClassesHook',
    'WholeCheckpointHook',
]
