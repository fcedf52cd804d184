"""Hooks: evaluation while training, exports, and safety."""

from .export_backbone_hook import ExportBackboneHook
from .knn_hook import KNNEvalHook
from .non_finite_hook import NonFiniteError, NonFiniteLossHook
from .same_classes_hook import OtherClassesError, SameClassesHook
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
