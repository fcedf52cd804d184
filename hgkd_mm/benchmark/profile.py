"""What one step launches, what its kernels cost, and where the host waits for the device."""

from __future__ import annotations

import re
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn
from torch.autograd import DeviceType

from .encoder import EncoderSteps, encoder_steps
from .report import Report, Stage, milliseconds
from .timing import Measurement, Settings, measure

# Not cuDNN's convolutions that have 'indexed' in their names.
MOVING = re.compile(r'gather|scatter|index(?!ed)', re.IGNORECASE)
WAIT_MESSAGE = 'called a synchronizing CUDA operation'
MOST = 10


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step, or one op on a CPU; ``ms`` is that of all calls in a step."""

    name: str
    calls: int
    ms: float


def profile_step(step: Callable[[], object], cuda: bool, steps: int) -> list[Kernel]:
    """Kernels of a step, the mean over some, the costly ones first; on a CPU its ops."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiled:
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    kernels = [
        Kernel(
            event.key,
            event.count // steps,
            (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000 / steps,
        )
        for event in profiled.key_averages()
        if event.device_type == kind
    ]
    return sorted(kernels, key=lambda kernel: kernel.ms, reverse=True)


def measure_kernels(
    stage: Stage, settings: Settings, network: nn.Module, engines: Sequence[str], *, steps: int = 1
) -> EncoderSteps:
    """What one training step of an encoder launches under each engine, and what costs most.

    Kernels (ops on a CPU) are averaged over ``steps``.
    """
    encoder, cuda = encoder_steps(network, settings, engines), settings.cuda
    results = measure(encoder.train, settings, engines[-1])
    kernels = {name: profile_step(step, cuda, steps) for name, step in encoder.train.items()}
    title = f'{settings.title}, mask ratio {settings.mask_ratio}'
    table = stage.table(f'{title}, one step')
    for result in results:
        _add_sums(table, result, kernels[result.name])
    for name, own in kernels.items():
        costly = stage.table(f'{title}, the {MOST} costly kernels of {name}')
        total = sum(kernel.ms for kernel in own)
        for kernel in own[:MOST]:
            cells = {
                'kernel' if cuda else 'op': short_name(kernel.name) if cuda else kernel.name,
                'calls': kernel.calls,
                'ms': milliseconds(kernel.ms / 1000),
                'share': f'{kernel.ms / total:.3f}',
            }
            costly.add(cells, vars(kernel))
    return encoder


def _add_sums(table: Report, result: Measurement, kernels: list[Kernel]) -> None:
    total = sum(kernel.ms for kernel in kernels)
    share = sum(kernel.ms for kernel in kernels if MOVING.search(kernel.name)) / total
    count = sum(kernel.calls for kernel in kernels)
    cells = {
        'step': result.name,
        'kernels': count,
        'ms of all': milliseconds(total / 1000),
        'ms': milliseconds(result.median),
        'ms to queue': milliseconds(statistics.median(result.queued)),
        'gather, index, scatter': f'{share:.3f}',
    }
    record = {'step': result.name, 'kernels': count, 'kernel_ms': total, 'share_moving': share}
    table.add(cells, {**record, 'seconds': result.seconds, 'queued': result.queued})


def short_name(name: str, most: int = 72) -> str:
    """A kernel's name without namespaces, 'void' and the end of what is long."""
    name = re.sub(r'\(anonymous namespace\)::|\b[A-Za-z_]\w*::|^void ', '', name)
    return name if len(name) <= most else f'{name[: most - 1]}…'


def add_waits(table: Report, name: str, step: Callable[[], object]) -> int:
    """Adds the lines at which the host waits during a step; returns how often it does."""
    with count_waits() as waits:
        step()
    for line, count in (waits or {'none': 0}).items():
        table.add({'step': name, 'line': line, 'waits': count})
    table.records.append({'step': name, 'waits': dict(waits)})
    return sum(waits.values())


@contextmanager
def count_waits() -> Iterator[Counter[str]]:
    """Counts the waits of the block for CUDA devices by their line.

    Yields:
        'path:line function' to the number of waits; the innermost line outside torch.
    """
    waits: Counter[str] = Counter()

    def note(message: Warning | str, *rest: object) -> None:
        if WAIT_MESSAGE in str(message):
            waits[_cause()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode('default')


def _cause() -> str:
    """The innermost line that is neither torch's, nor of ``warnings``, nor of this module."""
    frame = sys._getframe(1)
    # The outermost one in a thread of torch's that runs the backward pass of its own ops only.
    while frame.f_back is not None and _module(frame).split('.')[0] in ('', 'torch', 'warnings'):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    depth = len(_module(frame).split('.')) + (path.stem == '__init__')
    return f'{"/".join(path.parts[-depth:])}:{frame.f_lineno} {frame.f_code.co_name}'


def _module(frame: FrameType) -> str:
    """Its module's name; empty in generated code and in this module."""
    name = frame.f_globals.get('__name__', '')
    return '' if name == __name__ else name
