"""Pre-training algorithms."""

from .hgkd import HGKD
from .hybrid_distill import HybridDistill

__all__ = ['HGKD', 'HybridDistill']
