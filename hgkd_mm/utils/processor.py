"""The processor: its name, the cores of this process, bfloat16. Does not import torch."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

# Intel's and AMD's in tiles and in vectors, ARM's.
_BFLOAT16_FLAGS = ('amx_bf16', 'avx512_bf16', 'bf16')


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The processor, by the system.

    Attributes:
        name: The product, or the architecture where the system does not say.
        bfloat16: Flags of the units that multiply bfloat16; empty if it is emulated.
    """

    name: str
    bfloat16: tuple[str, ...]


def read_processor(cpuinfo: str | None = None) -> Processor:
    """Parses the text of /proc/cpuinfo, empty where there is none; None reads it."""
    if cpuinfo is None:
        path = Path('/proc/cpuinfo')
        cpuinfo = path.read_text() if path.is_file() else ''
    fields = dict(
        (part.strip() for part in line.split(':', 1))
        for line in cpuinfo.splitlines()
        if ':' in line
    )
    flags = fields.get('flags', fields.get('Features', '')).split()
    return Processor(
        name=fields.get('model name') or platform.processor() or platform.machine(),
        bfloat16=tuple(flag for flag in _BFLOAT16_FLAGS if flag in flags),
    )


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 without emulation (Linux)."""
    return bool(read_processor().bfloat16)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == 'linux':
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
