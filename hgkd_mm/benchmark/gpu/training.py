"""Real training of the flagship's config for a while: is the GPU or the data what it waits for?"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from hgkd_mm.utils.processor import usable_cores

from ..table import MIB
from .context import Context, Findings
from .openmmlab import flagship, import_openmmlab
from .precision import free_memory
from .utilisation import UtilisationWatch

MOST_WORKERS = 12
# Seconds for the loader's processes to end.
TEARDOWN = 5.0
COLUMNS = (
    'batch',
    'workers',
    'steps',
    'ms (median)',
    'images/s (median)',
    'images/s (mean)',
    'share waiting for data',
    'GPU busy, %',
    'GPU memory, MiB',
    'peak MiB of torch',
)


@dataclass
class Course:
    """How a training went, its first steps left out.

    Attributes:
        seconds: of each step.
        waiting: seconds of each in which data was waited for.
        busy, memory: utilisation in percent and memory in MiB of the GPU, medians; None where
            they are not told.
        peak: most bytes that torch held on the GPU; None on a CPU.
    """

    seconds: list[float]
    waiting: list[float]
    busy: float | None
    memory: float | None
    peak: int | None


def training(context: Context, found: Findings) -> None:
    """Steps of a Runner with the config's pipeline, optimizer and hooks, on Scenes."""
    import_openmmlab()
    from hgkd_mm.scenes import SceneFolder  # imports OpenCV

    workers = max(1, min(MOST_WORKERS, usable_cores() - 2))
    before = time.monotonic()
    data = SceneFolder(
        out=context.scratch / 'scenes',
        size=context.sizes.image,
        train=context.sizes.images * workers,
        val=0,
    )
    for _ in data.write(workers=workers):
        pass
    found.notes.append(
        f'{data.train} Scenes of {data.size} px were drawn in {time.monotonic() - before:.0f} s.'
    )
    course = _train(context, data.out / 'train', workers)
    batch = context.sizes.train_batch
    if not course.seconds:
        found.broken.append('The training took no step in its time.')
        return
    if course.memory is not None and course.memory < (course.peak or 0) / MIB:
        found.notes.append(
            f'nvidia-smi told {course.busy:.0f} % and {course.memory:.0f} MiB, less than torch '
            'itself held: it does not see this process, and both are left out.'
        )
        course.busy = course.memory = None
    median = statistics.median(course.seconds)
    mean = statistics.fmean(course.seconds)
    share = sum(course.waiting) / sum(course.seconds)
    table = found.table(f'Training of hgkd_r50_mae, {context.sizes.image} px, Scenes', COLUMNS)
    optional = course.busy, course.memory, course.peak and course.peak / MIB
    table.rows.append(
        (
            *map(str, (batch, workers, len(course.seconds))),
            f'{1000 * median:.0f}',
            f'{batch / median:.0f}',
            f'{batch / mean:.0f}',
            f'{share:.3f}',
            *('' if value is None else f'{value:.0f}' for value in optional),
        )
    )
    table.records.append({'batch': batch, 'workers': workers, **vars(course)})


def _train(context: Context, images: Path, workers: int) -> Course:
    """Trains until the stage's share, or the most that a training may take, is used up."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    from ..hgkd_step import random_teacher
    from .time_limit import TimeIsUpError, TimeLimitHook

    sizes = context.sizes
    config = Config.fromfile(flagship(context))
    config.model.teachers.mim.checkpoint = str(random_teacher(context.scratch, sizes.vit))
    _on_images(config, images, workers, context)
    config.work_dir = str(context.scratch / 'training')
    config.log_level = 'WARNING'
    # The kNN needs ImageNet; checkpoints and TensorBoard are no part of a step.
    config.custom_hooks = [dict(type='NonFiniteLossHook', interval=50)]
    config.default_hooks.checkpoint = None
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    runner = Runner.from_cfg(config)
    allowed = min(sizes.train_seconds, context.stage_left - TEARDOWN)
    limit = TimeLimitHook(time.monotonic() + allowed, sizes.train_steps, sizes.warm_up)
    runner.register_hook(limit, priority='LOWEST')
    if context.cuda:
        torch.cuda.reset_peak_memory_stats()
    with UtilisationWatch(context.device) as watch, suppress(TimeIsUpError):
        runner.train()
    readings = [reading[1:] for reading in watch.readings if reading[0] > limit.warm]
    busy, memory = map(statistics.median, zip(*readings, strict=True)) if readings else (None, None)
    course = Course(
        seconds=limit.seconds,
        waiting=limit.waiting,
        busy=busy,
        memory=memory,
        peak=torch.cuda.max_memory_allocated() if context.cuda else None,
    )
    del runner
    free_memory()
    return course


def _on_images(config: object, images: Path, workers: int, context: Context) -> None:
    """Writes a folder of images into the config in place of ImageNet, again and again."""
    _, crop, *others = config.train_dataloader.dataset.pipeline
    load = dict(type='LoadColorImage')
    crop.scale = context.sizes.image
    folder = dict(type='UnlabelledFolder', data_root=str(images), pipeline=[load, crop, *others])
    # Repeated, so that no epoch ends, after which the loader's queue would be empty.
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=1000, dataset=folder)
    config.train_dataloader.update(
        batch_size=context.sizes.train_batch,
        num_workers=workers,
        pin_memory=context.cuda,
        # Kept by a loader that only the garbage collector frees, each would be waited for for 5 s.
        persistent_workers=False,
    )
