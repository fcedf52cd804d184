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
from hgkd_mm.utils.process import usable_cores

from .report import Stage
from .step import random_teacher
from .timing import Settings

MOST_WORKERS = 12
# Seconds for the loader's processes to end.
TEARDOWN = 5.0


class TimeIsUpError(Exception):
    """Leaves the training loop before the end of its epochs."""


class TimeLimitHook(Hook):
    """Ends the training after so many steps, or at a time; runs after all others.

    Raises:
        TimeIsUpError: after the last step.
    """

    def __init__(self, end: float, steps: int) -> None:
        self.end, self.steps = end, steps

    def after_train_iter(self, runner: Runner, batch_idx: int, *_: object, **__: object) -> None:
        if batch_idx + 1 >= self.steps or time.monotonic() > self.end:
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
    found, peak = _train(whole, TimeLimitHook(end, warmup + steps), settings)
    # As IterTimerHook measures them: in all, and for data.
    taken, waiting = (found[name][warmup:] for name in ('time', 'data_time'))
    if not taken:
        stage.broken.append('The training took no step in its time.')
        return
    batch, total, median = settings.batch, sum(taken), statistics.median(taken)
    stage.table(f'Training of hgkd_r50_mae, {settings.size} px, Scenes').rows.append(
        {
            'batch': batch,
            'workers': workers,
            'steps': len(taken),
            'ms (median)': 1000 * median,
            'images/s (median)': batch / median,
            'images/s (mean)': batch * len(taken) / total,
            'share waiting for data': sum(waiting) / total,
            'peak MiB of torch': peak,
            'seconds': taken,
            'waiting': waiting,
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


def _train(
    config: Config, limit: TimeLimitHook, settings: Settings
) -> tuple[dict[str, list[float]], float | None]:
    """Trains until the limit: times of each step, most MiB that torch held on the GPU."""
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
    hub = runner.message_hub
    times = {
        name: hub.get_scalar(f'train/{name}').data[0].tolist() for name in ('time', 'data_time')
    }
    return times, torch.cuda.max_memory_allocated() / 2**20 if settings.cuda else None
