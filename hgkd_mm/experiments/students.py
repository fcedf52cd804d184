"""A pixel baseline and an H-GKD student, pre-trained side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.utils.process import cpu_has_bfloat16

from . import CONFIGS, SCENES
from .teacher import CARRIED, train_teacher
from .training import Job, folder_options, train

HGKD_CONFIG = CONFIGS / 'pretrain' / 'hgkd_r18_scenes.py'
SPARK_CONFIG = CONFIGS / 'pretrain' / 'spark_r18_scenes.py'
PIXELS, HGKD = 'pixel baseline (SparK)', 'H-GKD student'
# Where the students' configs say how long they train.
EPOCH_KEYS = (
    'train_cfg.max_epochs',
    'param_scheduler.1.T_max',
    'param_scheduler.1.end',
    'default_hooks.checkpoint.interval',
)
# An epoch has 188 steps, of which the configs' warm-up would take 50. Linear probe of H-GKD:
# 29.9 as the configs have it, 32.5 with this warm-up, 35.5 with this rate as well (seed 0).
ONE_EPOCH = {'param_scheduler.0.end': 20, 'optim_wrapper.optimizer.lr': 2e-3}


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes how long the block took."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 1)


def pretrain_students(
    *,
    work_dir: Path,
    seconds: dict[str, float],
    data: Path | None = None,
    layouts: bool = False,
    seed: int = 0,
    new_teacher: bool = False,
    epochs: int | None = None,
    options: Mapping[str, object] | None = None,
) -> dict[str, Job]:
    """Makes Scenes, a teacher if asked for, a pixel baseline and an H-GKD student.

    Finished stages are not repeated.

    Args:
        work_dir: everything that is made goes here.
        seconds: gets the time of each stage.
        data: folder of unlabelled images to pre-train on instead of Scenes.
        layouts: make those of COCO and ADE20K as well.
        seed: of the students: initialization, masks, order of images.
        new_teacher: train the teacher instead of taking the one in ``assets/``.
        epochs: of both students; as many as their configs say if None.
        options: overrides for both students, by dotted config key.

    Returns:
        `PIXELS` and `HGKD` to their finished trainings.
    """
    with timed(seconds, 'scenes'):
        make_scenes(SceneFolder(out=SCENES), layouts=layouts)
    prepare()
    with timed(seconds, 'teacher'):
        teacher = train_teacher(work_dir / 'teacher', data=data) if new_teacher else CARRIED
    shared = student_options(data, seed)
    shared |= {} if epochs is None else dict.fromkeys(EPOCH_KEYS, epochs)
    shared |= ONE_EPOCH if epochs == 1 else {}
    shared |= options or {}
    distil = {**shared, 'model.teachers.mim.checkpoint': str(teacher)}
    jobs = {
        title: Job(config=config, work_dir=work_dir / folder, options=overrides, title=title)
        for title, config, folder, overrides in (
            (PIXELS, SPARK_CONFIG, 'spark', shared),
            (HGKD, HGKD_CONFIG, 'hgkd', distil),
        )
    }
    with timed(seconds, 'both students'):
        train(*jobs.values())
    for job in jobs.values():
        # The tasks' configs start from this name, whatever the epoch.
        link = job.work_dir / 'last.pth'
        link.unlink(missing_ok=True)
        link.symlink_to(job.checkpoint.name)
    return jobs


def prepare() -> None:
    """Lets this process build mmpretrain's models, without a log line for every single weight."""
    init_default_scope('mmpretrain')
    MMLogger.get_instance('experiments', log_level='WARNING')


def student_options(data: Path | None, seed: int) -> dict[str, object]:
    """Overrides that both students share."""
    options: dict[str, object] = {
        'randomness.seed': seed,
        'train_dataloader.dataset.data_root': str(SCENES),
        # Without instructions for it, bfloat16 is slower than float32 on a CPU.
        'optim_wrapper.type': 'BF16OptimWrapper' if cpu_has_bfloat16() else 'OptimWrapper',
    }
    return options if data is None else options | folder_options(data, HGKD_CONFIG)
