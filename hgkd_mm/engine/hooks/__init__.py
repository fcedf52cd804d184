"""Hooks: evaluation while training, and safety."""

from .knn_hook import KNNEvalHook
from .non_finite_hook import NonFiniteError, NonFiniteLossHook

__all__ = ['KNNEvalHook', 'NonFiniteError', 'NonFiniteLossHook']
