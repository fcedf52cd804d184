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
from hgkd_mm.utils.process import processor_name, usable_cores

from .report import shown


@dataclass
class Measurement:
    """Times of one alternative, by round."""

    name: str
    seconds: list[float]
    # After how many seconds the host was free again: on a GPU, when all work was handed over; an
    # upper bound where the driver's queue was full.
    queued: list[float]
    # Its time over the reference's time in the same round.
    ratios: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how."""

    network: str = 'resnet50'  # timm's name
    batch: int = 8
    size: int = 224  # image side, pixels
    cell: int = 32  # mask cell side, pixels
    mask_ratio: float = 0.6
    dtype: torch.dtype = torch.float32  # or bfloat16, for autocast
    device: str = 'cpu'
    rounds: int = 9
    warmup: int = 2  # rounds that do not count

    @property
    def cuda(self) -> bool:
        return self.device.startswith('cuda')

    @property
    def type_name(self) -> str:
        """What products are computed in."""
        rounded = self.cuda and torch.backends.cuda.matmul.allow_tf32
        if self.dtype == torch.float32 and rounded:
            return 'TF32'
        return str(self.dtype).removeprefix('torch.')

    @property
    def title(self) -> str:
        return f'batch {self.batch}, {self.size} px, mask ratio {self.mask_ratio}, {self.type_name}'

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
        settings: of rounds, and of the device.
        reference: the step that ratios refer to.
        calls: how often a step runs for one reading, back to back; the time is that of one call.
    """
    readings: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(settings.warmup + settings.rounds):
        for name, step in steps.items():
            readings[name].append(_read(step, calls, settings.cuda))
    against = [seconds for seconds, _ in readings[reference][settings.warmup :]]
    results = []
    for name, read in readings.items():
        seconds, queued = map(list, zip(*read[settings.warmup :], strict=True))
        ratios = [one / other for one, other in zip(seconds, against, strict=True)]
        results.append(Measurement(name, seconds, queued, ratios))
    return results


def _read(step: Callable[[], object], calls: int, cuda: bool) -> tuple[float, float]:
    """Seconds of a call by the device's clock (CUDA events), and those the host is busy."""
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
    """Bytes that ``forward`` keeps for the backward pass, without those of ``exclude``.

    Each storage counts once; what autograd does not save, such as index tables, does not.
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


def step_row(
    result: Measurement, step: Callable[[], object], settings: Settings, reference: str
) -> dict[str, object]:
    """Columns of a step: its time and speed, and on a GPU the peak memory of one more."""
    low, high = (shown(1000 * edge(result.seconds)) for edge in (min, max))
    row = {
        'step': result.name,
        'ms': 1000 * result.median,
        'range': f'{low}-{high}',
        f'ratio to {reference}': statistics.median(result.ratios),
        'ratio range': f'{min(result.ratios):.3f}-{max(result.ratios):.3f}',
    }
    if settings.cuda:
        row['ms to queue'] = 1000 * statistics.median(result.queued)
        row['peak MiB'] = _peak_bytes(step) / 2**20
    row['images/s'] = settings.batch / result.median
    return row | {'seconds': result.seconds, 'queued': result.queued}


def _peak_bytes(step: Callable[[], object]) -> int:
    """Most memory that torch held at once on the CUDA device during a step."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def keep_freed_memory() -> bool:
    """Lets the allocator of glibc keep what is freed, so that no step pays for new pages.

    On a virtual machine, mapping and clearing them can take longer than the arithmetic, and it
    falls on dense networks more than on sparse ones. Set before the first allocation of size.
    Returns whether it could be set.
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


def describe(device: str) -> dict[str, object]:
    """``versions``, driver, host, date and commit."""
    import timm

    found: dict[str, object] = versions(device)
    if 'cuda' in device:
        memory = torch.cuda.get_device_properties(device).total_memory
        query = 'nvidia-smi --query-gpu=driver_version --format=csv,noheader'
        found['device_memory_gib'] = round(memory / 2**30, 1)
        found['driver'] = subprocess.getoutput(query)
        found['cuda'] = torch.version.cuda
        found['cudnn'] = str(torch.backends.cudnn.version())
    return found | {
        'timm': timm.__version__,
        'cpu': processor_name(),
        'cores': usable_cores(),
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'commit': subprocess.getoutput(f'git -C "{Path(__file__).parent}" rev-parse HEAD'),
    }
