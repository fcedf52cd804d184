"""The processor: its name, the cores of this process, bfloat16. Does not import torch."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def _cpuinfo() -> dict[str, str]:
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (li.partition(':') for li in lines)}


def processor_name() -> str:
    """The product, or the architecture where the system does not say."""
    return _cpuinfo().get('model name') or platform.processor() or platform.machine()


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 without emulation (Linux)."""
    cpuinfo = _cpuinfo()
    flags = cpuinfo.get('flags', cpuinfo.get('Features', '')).split()
    # Intel's and AMD's in tiles and in vectors, ARM's
    return bool({'amx_bf16', 'avx512_bf16', 'bf16'} & set(flags))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == 'linux':
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
