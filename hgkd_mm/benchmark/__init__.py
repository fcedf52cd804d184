"""Time and memory of training steps on masked images; what is exported here needs torch alone."""

from .report import Stage, Table
from .timing import Measurement, Settings, keep_freed_memory, measure, saved_bytes, versions

__all__ = [
    'Measurement',
    'Settings',
    'Stage',
    'Table',
    'keep_freed_memory',
    'measure',
    'saved_bytes',
    'versions',
]
