"""A pixel baseline and an H-GKD student, pre-trained side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.utils.processor import cpu_has_bfloat16

from .places import CONFIGS, SCENES
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


class Stopwatch:
    """Seconds of each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Students:
    """Pre-trained students.

    Attributes:
        jobs: `PIXELS` and `HGKD` to their finished trainings.
        teacher: weights that H-GKD learned from.
        reused: which of them a former call had finished.
    """

    jobs: dict[str, Job]
    teacher: Path
    reused: tuple[str, ...]

    @property
    def checkpoints(self) -> dict[str, Path]:
        """The last checkpoint of each."""
        return {name: job.checkpoint for name, job in self.jobs.items()}


def pretrain_students(
    *,
    work_dir: Path,
    data: Path | None = None,
    seed: int = 0,
    new_teacher: bool = False,
    epochs: int | None = None,
    options: dict[str, object] | None = None,
    watch: Stopwatch | None = None,
) -> Students:
    """Makes Scenes, a teacher if asked for, a pixel baseline and an H-GKD student.

    Finished stages are not repeated.

    Args:
        work_dir: everything that is made goes here.
        data: folder of unlabelled images to pre-train on instead of Scenes.
        seed: of the students: initialization, masks, order of images.
        new_teacher: train the teacher instead of taking the one in ``assets/``.
        epochs: of both students; as many as their configs say if None.
        options: overrides for both students, by dotted config key.
        watch: takes the time of each stage.

    Raises:
        RuntimeError: a stage failed; the message says which and shows its log.
        FileNotFoundError: there is no teacher.
    """
    if not new_teacher and not CARRIED.is_file():
        raise FileNotFoundError(f'There is no teacher {CARRIED}: --train-teacher makes one.')
    watch = watch or Stopwatch()
    with watch('scenes'):
        make_scenes(SceneFolder(out=SCENES), layouts=False)
    shared = student_options(data, seed)
    shared |= {} if epochs is None else dict.fromkeys(EPOCH_KEYS, epochs)
    shared |= ONE_EPOCH if epochs == 1 else {}
    shared |= options or {}
    prepare()
    with watch('teacher'):
        teacher = train_teacher(work_dir / 'teacher', data=data) if new_teacher else CARRIED
    distil = {**shared, 'model.teachers.mim.checkpoint': str(teacher)}
    with watch('both students'):
        jobs = {
            title: Job(config=config, work_dir=work_dir / folder, options=overrides, title=title)
            for title, config, folder, overrides in (
                (PIXELS, SPARK_CONFIG, 'spark', shared),
                (HGKD, HGKD_CONFIG, 'hgkd', distil),
            )
        }
        reused = tuple(title for title, job in jobs.items() if job.done)
        train(*jobs.values())
    for job in jobs.values():
        _link(job.checkpoint)
    return Students(jobs=jobs, teacher=teacher, reused=reused)


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


def _link(checkpoint: Path) -> None:
    """``last.pth`` beside it, whatever its epoch: the tasks' configs start from that name."""
    link = checkpoint.with_name('last.pth')
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.name)
