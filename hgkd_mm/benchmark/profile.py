"""What one step launches, what its kernels cost, and where the host waits for the device."""

from __future__ import annotations

import re
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.autograd import DeviceType

from .encoder import EncoderStep, encoder_steps
from .report import Stage, Table
from .timing import Settings, measure

# Not cuDNN's convolutions that have 'indexed' in their names.
MOVING = re.compile(r'gather|scatter|index(?!ed)', re.IGNORECASE)
WAIT_MESSAGE = 'called a synchronizing CUDA operation'
MOST = 10


def profile_step(step: Callable[[], object], cuda: bool, steps: int) -> list[dict]:
    """Kernels of a step (on a CPU its ops), the mean over some steps, the costly ones first.

    Each has its name, its calls in a step, and the milliseconds of all of them.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiled:
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
    kind, clock = DeviceType.CPU, 'self_cpu_time_total'
    if cuda:
        kind, clock = DeviceType.CUDA, 'self_device_time_total'
    kernels = [
        {
            'kernel': event.key,
            'calls': event.count // steps,
            'ms': getattr(event, clock) / 1000 / steps,
        }
        for event in profiled.key_averages()
        if event.device_type == kind
    ]
    return sorted(kernels, key=lambda kernel: kernel['ms'], reverse=True)


def measure_kernels(
    stage: Stage, settings: Settings, engines: Sequence[str], *, steps: int = 1
) -> dict[str, EncoderStep]:
    """What one training step of an encoder launches under each engine, and what costs most.

    Kernels (ops on a CPU) are averaged over ``steps``.
    """
    encoders = encoder_steps(settings, engines)
    title = f'{settings.network}, {settings.title}'
    sums = stage.table(f'{title}, one step')
    for result in measure(encoders, settings, engines[-1]):
        kernels = profile_step(encoders[result.name], settings.cuda, steps)
        total = sum(kernel['ms'] for kernel in kernels)
        moving = sum(kernel['ms'] for kernel in kernels if MOVING.search(kernel['kernel']))
        sums.rows.append(
            {
                'step': result.name,
                'kernels': sum(kernel['calls'] for kernel in kernels),
                'ms of all': total,
                'ms': 1000 * result.median,
                'ms to queue': 1000 * statistics.median(result.queued),
                'gather, index, scatter': moving / total,
                'seconds': result.seconds,
                'queued': result.queued,
            }
        )
        stage.table(f'{title}, the {MOST} costly kernels of {result.name}').rows += [
            {**kernel, 'kernel': short_name(kernel['kernel']), 'share': kernel['ms'] / total}
            for kernel in kernels[:MOST]
        ]
    return encoders


def short_name(name: str, most: int = 72) -> str:
    """A name without namespaces (but 'aten'), 'void' and the end of what is long."""
    name = re.sub(r'\(anonymous namespace\)::|\b(?!aten)[A-Za-z_]\w*::|^void ', '', name)
    return name if len(name) <= most else f'{name[: most - 1]}…'


def add_waits(table: Table, name: str, step: Callable[[], object]) -> int:
    """Adds the lines at which the host waits during a step; returns how often it does."""
    waits = count_waits(step)
    for line, count in (waits or {'none': 0}).items():
        table.rows.append({'step': name, 'line': line, 'waits': count})
    return waits.total()


def count_waits(step: Callable[[], object]) -> Counter[str]:
    """Waits of a step for CUDA devices, by their innermost line of Python."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = [warning for warning in caught if WAIT_MESSAGE in str(warning.message)]
    return Counter(f'{"/".join(Path(w.filename).parts[-3:])}:{w.lineno}' for w in waits)
