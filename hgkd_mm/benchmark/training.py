"""Real training of the flagship's config for a while: is the GPU or the data what it waits for?"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hgkd_mm.scenes import SceneFolder
from hgkd_mm.utils.processor import usable_cores

from .report import Stage
from .step import random_teacher
from .timing import Settings

MOST_WORKERS = 12
# Seconds for the loader's processes to end.
TEARDOWN = 5.0


class TimeIsUpError(Exception):
    """Leaves the training loop, which knows no end but that of its epochs."""


class TimeLimitHook(Hook):
    """Notes what each step after the warm-up took, and ends the training; runs after all others.

    Attributes:
        seconds, waiting: of each step, in all and for data, as ``IterTimerHook`` measures them.

    Raises:
        TimeIsUpError: after a step, when it is time.
    """

    def __init__(self, end: float, steps: int, warmup: int) -> None:
        self.end, self.steps, self.warmup = end, steps, warmup
        self.seconds: list[float] = []
        self.waiting: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *rest: object, **more: object
    ) -> None:
        if batch_idx >= self.warmup:
            hub = runner.message_hub
            self.seconds.append(hub.get_scalar('train/time').current())
            self.waiting.append(hub.get_scalar('train/data_time').current())
        if len(self.seconds) >= self.steps or time.monotonic() > self.end:
            raise TimeIsUpError


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
        vit: size of its teacher, see ``build_models``.
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
    end = time.monotonic() + min(seconds, stage.share_end - time.monotonic() - TEARDOWN)
    limit = TimeLimitHook(end, steps, warmup)
    peak = _train(whole, limit, settings)
    if not limit.seconds:
        stage.broken.append('The training took no step in its time.')
        return
    batch, total = settings.batch, sum(limit.seconds)
    median = statistics.median(limit.seconds)
    stage.table(f'Training of hgkd_r50_mae, {settings.size} px, Scenes').rows.append(
        {
            'batch': batch,
            'workers': workers,
            'steps': len(limit.seconds),
            'ms (median)': 1000 * median,
            'images/s (median)': batch / median,
            'images/s (mean)': batch * len(limit.seconds) / total,
            'share waiting for data': sum(limit.waiting) / total,
            'peak MiB of torch': peak,
            'seconds': limit.seconds,
            'waiting': limit.waiting,
        }
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
        pin_memory=settings.cuda,
        # Kept by a loader that only the garbage collector frees, each would be waited for for 5 s.
        persistent_workers=False,
    )


def _train(config: Config, limit: TimeLimitHook, settings: Settings) -> float | None:
    """Trains until the limit; most MiB that torch held on the GPU meanwhile."""
    config.log_level = 'WARNING'
    # The kNN needs ImageNet; checkpoints and TensorBoard are no part of a step.
    config.custom_hooks = [dict(type='NonFiniteLossHook', interval=50)]
    config.default_hooks.checkpoint = None
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    runner = Runner.from_cfg(config)
    runner.register_hook(limit, priority='LOWEST')
    if settings.cuda:
        torch.cuda.reset_peak_memory_stats()
    with suppress(TimeIsUpError):
        runner.train()
    return torch.cuda.max_memory_allocated() / 2**20 if settings.cuda else None
