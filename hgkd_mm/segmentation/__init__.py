"""What mmseg lacks for the configs here; importing this registers it."""

from .weighted_loss import ClassWeightedCrossEntropyLoss

__all__ = ['ClassWeightedCrossEntropyLoss']
