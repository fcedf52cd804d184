"""Real training of the flagship's config for a while: is the GPU or the data what it waits for?"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hgkd_mm.scenes import SceneFolder
from hgkd_mm.utils.processor import usable_cores

from .report import Settings, Stage, mebibytes
from .step import random_teacher
from .timing import first_line, free_memory, is_cuda

MOST_WORKERS = 12
# Seconds for the loader's processes to end.
TEARDOWN = 5.0


class TimeIsUpError(Exception):
    """Leaves the training loop, which knows no end but that of its epochs."""


class TimeLimitHook(Hook):
    """Notes what each step took, and ends the training in time; runs after all other hooks.

    Args:
        end: when to end, by ``time.monotonic``.
        steps: most steps after the warm-up.
        warmup: steps that are not noted.

    Attributes:
        seconds, waiting: of each step, in all and for data, as ``IterTimerHook`` measures them.
        warm: when the warm-up was over, by ``time.monotonic``.

    Raises:
        TimeIsUpError: after a step, when it is time.
    """

    def __init__(self, end: float, steps: int, warmup: int) -> None:
        self.end, self.steps, self.warmup = end, steps, warmup
        self.seconds: list[float] = []
        self.waiting: list[float] = []
        self.warm = float('inf')

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        if batch_idx == self.warmup - 1:
            self.warm = time.monotonic()
        if batch_idx >= self.warmup:
            hub = runner.message_hub
            self.seconds.append(hub.get_scalar('train/time').current())
            self.waiting.append(hub.get_scalar('train/data_time').current())
        if len(self.seconds) >= self.steps or time.monotonic() > self.end:
            raise TimeIsUpError


class UtilizationWatch(threading.Thread):
    """Asks nvidia-smi once in a while; readings stay empty where it does not answer.

    Attributes:
        readings: when (``time.monotonic``), utilization in percent, memory in MiB, of the whole
            device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True)
        self.readings: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        # Its number would change with CUDA_VISIBLE_DEVICES. torch before 2.4 does not tell it.
        properties = torch.cuda.get_device_properties(device) if is_cuda(device) else None
        self._uuid = getattr(properties, 'uuid', None)

    def __enter__(self) -> UtilizationWatch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def run(self) -> None:
        question = '--query-gpu=utilization.gpu,memory.used'
        command = (
            'nvidia-smi',
            f'--id=GPU-{self._uuid}',
            question,
            '--format=csv,noheader,nounits',
        )
        while self._uuid is not None and not self._over.wait(1.0):
            reading = parse_reading(first_line(*command) or '')
            if reading is None:
                return
            self.readings.append((time.monotonic(), *reading))


def parse_reading(line: str) -> tuple[float, float] | None:
    """A line of nvidia-smi; None if a figure is '[N/A]', as on parts of a GPU."""
    cells = [cell.strip() for cell in line.split(',')]
    if len(cells) != 2 or not all(cell.replace('.', '', 1).isdigit() for cell in cells):
        return None
    return float(cells[0]), float(cells[1])


def measure_training(
    stage: Stage,
    settings: Settings,
    config: Path,
    vit: str | dict,
    scratch: Path,
    *,
    images: int = 60,
    seconds: float = 90.0,
    steps: int = 100_000,
    warmup: int = 10,
) -> None:
    """Steps of a Runner with the flagship's pipeline, optimizer and hooks, on Scenes.

    Args:
        stage: gets the table; its share of the time ends the training.
        settings: of images, batch and device.
        config: the flagship's.
        vit: size of its teacher, as mmpretrain's ``VisionTransformer`` wants it.
        scratch: folder for images and logs.
        images: to draw for each process that draws them.
        seconds: most that the training may take.
        steps: most steps of it.
        warmup: steps that do not count: kernels are chosen, the loader's queue fills.
    """
    workers = max(1, min(MOST_WORKERS, usable_cores() - 2))
    before = time.monotonic()
    data = SceneFolder(out=scratch / 'scenes', size=settings.size, train=images * workers, val=0)
    for _ in data.write(workers=workers):
        pass
    stage.notes.append(
        f'{data.train} Scenes of {data.size} px were drawn in {time.monotonic() - before:.0f} s.'
    )
    whole = Config.fromfile(config)
    whole.model.teachers.mim.checkpoint = str(random_teacher(scratch, vit))
    whole.work_dir = str(scratch / 'training')
    _read_images(whole, data.out / 'train', workers, settings)
    end = time.monotonic() + min(seconds, stage.time_left - TEARDOWN)
    record = _train(whole, TimeLimitHook(end, steps, warmup), settings.device)
    if not record['seconds']:
        stage.broken.append('The training took no step in its time.')
        return
    if record['memory'] is not None and record['memory'] < (record['peak'] or 0) / 2**20:
        stage.notes.append(
            f'nvidia-smi told {record["busy"]:.0f} % and {record["memory"]:.0f} MiB, less than '
            'torch itself held: it does not see this process, and both are left out.'
        )
        record |= {'busy': None, 'memory': None}
    taken, batch = record['seconds'], settings.batch
    median, total = statistics.median(taken), sum(taken)
    table = stage.table(f'Training of hgkd_r50_mae, {settings.size} px, Scenes')
    table.add(
        {
            'batch': batch,
            'workers': workers,
            'steps': len(taken),
            'ms (median)': f'{1000 * median:.0f}',
            'images/s (median)': f'{batch / median:.0f}',
            'images/s (mean)': f'{batch * len(taken) / total:.0f}',
            'share waiting for data': f'{sum(record["waiting"]) / total:.3f}',
            'GPU busy, %': '' if record['busy'] is None else f'{record["busy"]:.0f}',
            'GPU memory, MiB': '' if record['memory'] is None else f'{record["memory"]:.0f}',
            'peak MiB of torch': mebibytes(record['peak']),
        },
        {'batch': batch, 'workers': workers, **record},
    )


def _read_images(config: Config, images: Path, workers: int, settings: Settings) -> None:
    """Writes a folder of images into the config in place of ImageNet, again and again."""
    _, crop, *others = config.train_dataloader.dataset.pipeline
    load = dict(type='LoadColorImage')
    crop.scale = settings.size
    folder = dict(type='UnlabelledFolder', data_root=str(images), pipeline=[load, crop, *others])
    # Repeated, so that no epoch ends, after which the loader's queue would be empty.
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=1000, dataset=folder)
    config.train_dataloader.update(
        batch_size=settings.batch,
        num_workers=workers,
        pin_memory=is_cuda(settings.device),
        # Kept by a loader that only the garbage collector frees, each would be waited for for 5 s.
        persistent_workers=False,
    )


def _train(config: Config, limit: TimeLimitHook, device: str) -> dict:
    """Trains until the limit; what it took after the warm-up.

    Returns:
        seconds, waiting: of each step; busy, memory: utilization in percent and memory in MiB of
        the GPU, medians, or None where they are not told; peak: most bytes that torch held on
        the GPU, or None on a CPU.
    """
    config.log_level = 'WARNING'
    # The kNN needs ImageNet; checkpoints and TensorBoard are no part of a step.
    config.custom_hooks = [dict(type='NonFiniteLossHook', interval=50)]
    config.default_hooks.checkpoint = None
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    runner = Runner.from_cfg(config)
    runner.register_hook(limit, priority='LOWEST')
    if is_cuda(device):
        torch.cuda.reset_peak_memory_stats()
    with UtilizationWatch(device) as watch, suppress(TimeIsUpError):
        runner.train()
    peak = torch.cuda.max_memory_allocated() if is_cuda(device) else None
    warm = [reading[1:] for reading in watch.readings if reading[0] > limit.warm]
    busy, memory = map(statistics.median, zip(*warm, strict=True)) if warm else (None, None)
    del runner
    free_memory()
    return {
        'seconds': limit.seconds,
        'waiting': limit.waiting,
        'busy': busy,
        'memory': memory,
        'peak': peak,
    }
