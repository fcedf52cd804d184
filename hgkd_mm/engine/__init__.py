"""Hooks, optimizer wrappers and layer decay; importing this registers them.

It also registers the package's reader of checkpoints with MMEngine, see `register_reader`.
"""

from hgkd_mm.utils.checkpoint_file import register_reader

from .hooks import (
    ExportBackboneHook,
    IncompleteCheckpointError,
    KNNEvalHook,
    NonFiniteError,
    NonFiniteLossHook,
    PretrainedReportHook,
    PretrainedWeightsError,
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
    'PretrainedReportHook',
    'PretrainedWeightsError',
    'WholeCheckpointHook',
]

register_reader()
