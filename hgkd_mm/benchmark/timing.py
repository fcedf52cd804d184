"""Timing of alternatives in turn, so that a machine's mood falls on all of them alike."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hgkd_mm.utils.processor import read_processor


@dataclass
class Measurement:
    """Times of one alternative.

    Attributes:
        name: what was run.
        seconds: time of each round.
        ratio: median over rounds of its time over the reference's time in the same round.
        low, high: smallest and largest of those ratios.
    """

    name: str
    seconds: list[float]
    ratio: float
    low: float
    high: float

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
) -> list[Measurement]:
    """Runs every step once a round, in turn, and compares them with the reference.

    Args:
        steps: name -> function to time.
        reference: the step that ratios refer to.
        rounds: measured rounds.
        warmup: rounds that do not count.
        device: a CUDA device is waited for before every reading of the clock.

    Returns:
        One measurement a step, in the order given.

    Raises:
        ValueError: the reference is not among the steps, or there is no round.
    """
    if reference not in steps:
        raise ValueError(f"The reference '{reference}' is not among the steps {list(steps)}.")
    if rounds < 1:
        raise ValueError(f'At least one measured round is needed, got {rounds} (--rounds).')

    def once(step: Callable[[], object]) -> float:
        if device.startswith('cuda'):
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if device.startswith('cuda'):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(warmup):
        for step in steps.values():
            once(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(once(step))
    results = []
    for name, times in seconds.items():
        ratios = [t / r for t, r in zip(times, seconds[reference], strict=True)]
        results.append(
            Measurement(name, times, statistics.median(ratios), min(ratios), max(ratios))
        )
    return results


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
