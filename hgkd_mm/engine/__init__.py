"""Hooks and optimizer wrappers; importing this registers them."""

from .hooks import KNNEvalHook, NonFiniteError, NonFiniteLossHook
from .optim_wrapper import BF16OptimWrapper

__all__ = ['BF16OptimWrapper', 'KNNEvalHook', 'NonFiniteError', 'NonFiniteLossHook']
