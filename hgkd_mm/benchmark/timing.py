"""Timing of alternatives in turn, so that a machine's mood falls on all of them alike."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hgkd_mm.utils.processor import read_processor


@dataclass
class Measurement:
    """Times of one alternative.

    Attributes:
        name: what was run.
        seconds: time of each round.
        queued: seconds of each round after which the host was free again: on a GPU, when all
            work was handed over; a driver whose queue is full makes it wait, so that it is then
            an upper bound.
        ratio: median over rounds of its time over the reference's time in the same round.
        low, high: smallest and largest of those ratios.
    """

    name: str
    seconds: list[float]
    ratio: float
    low: float
    high: float
    queued: list[float]

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)


def keep_freed_memory() -> bool:
    """Lets the allocator of glibc keep what is freed, so that no step pays for new pages.

    By default it hands large blocks back to the system, and their next use waits for pages to
    be mapped and cleared: on a virtual machine that can take longer than the arithmetic, and it
    falls on dense networks more than on sparse ones. Set before the first allocation of size.

    Returns:
        Whether it could be set (glibc only).
    """
    mmap_max, trim_threshold = -4, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, -1))


def measure(
    steps: dict[str, Callable[[], object]],
    *,
    reference: str,
    rounds: int = 7,
    warmup: int = 2,
    device: str = 'cpu',
    calls: int = 1,
) -> list[Measurement]:
    """Runs every step once a round, in turn, and compares them with the reference.

    Args:
        steps: name -> function to time.
        reference: the step that ratios refer to.
        rounds: measured rounds.
        warmup: rounds that do not count.
        device: on a CUDA device its own clock is read, by events before and after the calls.
        calls: how often a step runs for one reading, back to back; the time is that of one call.

    Returns:
        One measurement a step, in the order given.

    Raises:
        ValueError: the reference is not among the steps, or there is no round.
    """
    if reference not in steps:
        raise ValueError(f"The reference '{reference}' is not among the steps {list(steps)}.")
    if rounds < 1:
        raise ValueError(f'At least one measured round is needed, got {rounds} (--rounds).')

    read = partial(_read_cuda if device.startswith('cuda') else _read_cpu, calls=calls)
    for _ in range(warmup):
        for step in steps.values():
            read(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    queued: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            taken, free = read(step)
            seconds[name].append(taken)
            queued[name].append(free)
    results = []
    for name, times in seconds.items():
        ratios = [t / r for t, r in zip(times, seconds[reference], strict=True)]
        ratio = statistics.median(ratios)
        results.append(Measurement(name, times, ratio, min(ratios), max(ratios), queued[name]))
    return results


def _read_cpu(step: Callable[[], object], calls: int) -> tuple[float, float]:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    taken = (time.perf_counter() - start) / calls
    return taken, taken


def _read_cuda(step: Callable[[], object], calls: int) -> tuple[float, float]:
    """Seconds of a call by the device's clock, and those that the host was busy with it."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    before.record()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    queued = time.perf_counter() - start
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000 / calls, queued / calls


def saved_bytes(forward: Callable[[], object], exclude: list[Tensor]) -> int:
    """Bytes that ``forward`` keeps for the backward pass.

    Each storage counts once; parameters and inputs given in ``exclude`` do not count, nor do
    tensors that are not saved by autograd, such as the index tables of a mask.
    """
    known = {t.untyped_storage().data_ptr() for t in exclude}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Kept alive until all is counted: a freed storage could be handed out twice.
        result = forward()
    total = sum(sizes.values())
    del result
    return total


def peak_bytes(step: Callable[[], object], device: str) -> int | None:
    """Most memory that torch held at once on a CUDA device during a step; None on CPU."""
    if not device.startswith('cuda'):
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def versions(device: str) -> dict[str, str]:
    """What a figure must be published with."""
    name = torch.cuda.get_device_name() if device.startswith('cuda') else read_processor().name
    return {
        'torch': torch.__version__,
        'python': platform.python_version(),
        'device': name,
        'threads': str(torch.get_num_threads()),
    }
