"""This process: processor, cores, bfloat16, and SIGTERM. Does not import torch."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


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


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit in the block, with the exit status that shells give it."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
