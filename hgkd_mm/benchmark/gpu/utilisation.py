"""How busy a GPU is and how much of its memory is taken, watched from a thread."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import torch

from .machine import output


class UtilisationWatch:
    """Asks nvidia-smi once in a while; readings stay empty where it does not answer.

    Args:
        device: a CUDA device, or 'cpu', which is not asked for.
        interval: seconds between two questions.

    Attributes:
        readings: when (``time.monotonic``), utilisation in percent, memory in MiB, of the whole
            device.
    """

    def __init__(self, device: str, interval: float = 1.0) -> None:
        self.readings: list[tuple[float, float, float]] = []
        self._interval = interval
        self._over = threading.Event()
        # torch before 2.4 does not tell it, and the readings then stay empty
        properties = None if device == 'cpu' else torch.cuda.get_device_properties(device)
        self._uuid = getattr(properties, 'uuid', None)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> UtilisationWatch:
        if self._uuid is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            reading = read_nvidia_smi(f'GPU-{self._uuid}')
            if reading is None:
                return
            self.readings.append((time.monotonic(), *reading))


def read_nvidia_smi(uuid: str) -> tuple[float, float] | None:
    """Utilisation in percent and memory in MiB; None where it is not told.

    Args:
        uuid: of the GPU, since numbers change with CUDA_VISIBLE_DEVICES.
    """
    line = output(
        'nvidia-smi',
        f'--id={uuid}',
        '--query-gpu=utilization.gpu,memory.used',
        '--format=csv,noheader,nounits',
    )
    return None if line is None else parse_reading(line)


def parse_reading(line: str) -> tuple[float, float] | None:
    """A line of nvidia-smi; None if a figure is '[N/A]', as on parts of a GPU."""
    cells = [cell.strip() for cell in line.split(',')]
    if len(cells) != 2 or not all(cell.replace('.', '', 1).isdigit() for cell in cells):
        return None
    return float(cells[0]), float(cells[1])
