"""Time and memory of alternatives, interleaved in one process, and the machine they ran on."""

from __future__ import annotations

import ctypes
import datetime
import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hgkd_mm.sparse import CellMask
from hgkd_mm.utils.processor import processor_name, usable_cores


@dataclass
class Measurement:
    """Times of one alternative.

    Attributes:
        seconds: of each round.
        ratio: median over rounds of its time over the reference's time in the same round.
        low, high: smallest and largest of those ratios.
        queued: seconds of each round after which the host was free again: on a GPU, when all
            work was handed over; an upper bound where the driver's queue was full.
    """

    name: str
    seconds: list[float]
    ratio: float
    low: float
    high: float
    queued: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how.

    Attributes:
        network: a name of ``NETWORKS``, or timm's.
        batch: images a step.
        size: image side, pixels.
        cell: mask cell side, pixels.
        mask_ratio: hidden fraction.
        dtype: float32, or bfloat16 for autocast.
        device: 'cpu' or a CUDA device.
        rounds, warmup: measured rounds, and those before them.
    """

    network: str = 'resnet50'
    batch: int = 8
    size: int = 224
    cell: int = 32
    mask_ratio: float = 0.6
    dtype: torch.dtype = torch.float32
    device: str = 'cpu'
    rounds: int = 9
    warmup: int = 2

    @property
    def cuda(self) -> bool:
        return self.device.startswith('cuda')

    @property
    def type_name(self) -> str:
        return str(self.dtype).removeprefix('torch.')

    @property
    def title(self) -> str:
        return f'{self.network}, batch {self.batch}, {self.size} px, {self.type_name}'

    def images(self) -> Tensor:
        """(batch, 3, size, size) noise, channels-last."""
        images = torch.randn(self.batch, 3, self.size, self.size, device=self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def draw_mask(self) -> CellMask:
        cells = self.size // self.cell
        return CellMask.random(
            batch=self.batch, grid=(cells, cells), mask_ratio=self.mask_ratio, device=self.device
        )


def measure(
    steps: dict[str, Callable[[], object]], settings: Settings, reference: str, *, calls: int = 1
) -> list[Measurement]:
    """Runs every step once a round, in turn, so that drift of the machine affects all alike.

    Args:
        steps: name -> function to time.
        settings: of rounds, and of the device: on a CUDA device its own clock is read, by events
            before and after the calls.
        reference: the step that ratios refer to.
        calls: how often a step runs for one reading, back to back; the time is that of one call.

    Raises:
        ValueError: there is no round.
    """
    if settings.rounds < 1:
        raise ValueError(f'At least one round is needed, got {settings.rounds} (--rounds).')
    readings: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(settings.warmup + settings.rounds):
        for name, step in steps.items():
            readings[name].append(_read(step, calls, settings.cuda))
    against = [seconds for seconds, _ in readings[reference][settings.warmup :]]
    results = []
    for name, read in readings.items():
        seconds, queued = map(list, zip(*read[settings.warmup :], strict=True))
        ratios = [one / other for one, other in zip(seconds, against, strict=True)]
        ratio = statistics.median(ratios)
        results.append(Measurement(name, seconds, ratio, min(ratios), max(ratios), queued))
    return results


def _read(step: Callable[[], object], calls: int, cuda: bool) -> tuple[float, float]:
    """Seconds of a call by the device's clock, and those that the host is busy with it."""
    if cuda:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        before.record()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    queued = (time.perf_counter() - start) / calls
    if not cuda:
        return queued, queued
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000 / calls, queued


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
        return tensor.detach()  # an output would hold the graph that holds it, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Kept alive until all is counted: a freed storage could be handed out twice.
        result = forward()
    total = sum(sizes.values())
    del result
    return total


def peak_bytes(step: Callable[[], object], settings: Settings) -> int | None:
    """Most memory that torch held at once on a CUDA device during a step; None on CPU."""
    if not settings.cuda:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


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


def free_memory() -> None:
    """Hands back to the device what torch holds and nothing refers to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def backends(*, fast: bool) -> Iterator[None]:
    """Fast: TF32 and cuDNN's choice of kernels by trial, as the configs train; else neither."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = fast
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def versions(device: str) -> dict[str, str]:
    """What a figure must be published with."""
    return {
        'torch': torch.__version__,
        'python': platform.python_version(),
        'device': torch.cuda.get_device_name() if 'cuda' in device else processor_name(),
        'threads': str(torch.get_num_threads()),
    }


def describe(device: str) -> dict[str, str | int | None]:
    """Device, driver, versions, host, date and commit; None is what the machine does not tell."""
    import numpy
    import timm

    cuda = 'cuda' in device
    properties = torch.cuda.get_device_properties(device) if cuda else None
    driver = ('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader')
    root = Path(__file__).resolve().parents[2]
    return {
        'device': properties.name if cuda else processor_name(),
        'device_memory_gib': round(properties.total_memory / 2**30, 1) if cuda else None,
        'driver': _first_line(*driver) if cuda else None,
        'torch': torch.__version__,
        'cuda': torch.version.cuda if cuda else None,
        'cudnn': str(torch.backends.cudnn.version()) if cuda else None,
        'timm': timm.__version__,
        'numpy': numpy.__version__,
        'python': platform.python_version(),
        'cpu': processor_name(),
        'cores': usable_cores(),
        'threads': torch.get_num_threads(),
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'commit': _first_line('git', '-C', str(root), 'rev-parse', 'HEAD'),
    }


def _first_line(*command: str) -> str | None:
    """First line of what a command prints; None if it is missing, fails or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split('\n')[0].strip() or None
