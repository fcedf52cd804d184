"""What only a GPU can settle: ``tools/gpu_check.py``."""

from .check import STAGES, end_at, run_stages
from .context import Context, Findings, LeftOutError
from .machine import describe
from .openmmlab import unpack
from .record import Recorder
from .sizes import SMALL, Sizes

__all__ = [
    'SMALL',
    'STAGES',
    'Context',
    'Findings',
    'LeftOutError',
    'Recorder',
    'Sizes',
    'describe',
    'end_at',
    'run_stages',
    'unpack',
]
