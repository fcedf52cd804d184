"""The quickstart from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from .data import ROOT, cpu_has_bfloat16, folder_options, make_scenes
from .evaluation import FrozenEvaluation, Score, build_student
from .job import Job
from .report import draw, last_losses, print_table, write_summary
from .teacher import CARRIED, train_teacher
from .training import train

HGKD_CONFIG = ROOT / 'configs' / 'pretrain' / 'hgkd_r18_scenes.py'
SPARK_CONFIG = ROOT / 'configs' / 'pretrain' / 'spark_r18_scenes.py'
PIXELS, HGKD = 'pixel baseline (SparK)', 'H-GKD student'
SCENES = ROOT / 'data' / 'scenes'
SCENES_CONFIG = ROOT / 'configs' / '_base_' / 'datasets' / 'scenes_cls.py'


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """Outcome of :func:`quickstart`.

    Attributes:
        scores: rows of the table.
        students: name to the checkpoint of each pre-trained student.
    """

    scores: dict[str, Score]
    students: dict[str, Path]


class Stopwatch:
    """Seconds of each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def quickstart(
    *,
    work_dir: Path,
    data: Path | None = None,
    seed: int = 0,
    new_teacher: bool = False,
    bank: int = 2400,
    options: dict[str, object] | None = None,
) -> QuickstartResult:
    """Scenes, a teacher, a pixel baseline and an H-GKD student, and what each is worth.

    Stages that a former call finished with the same settings are not repeated.

    Args:
        work_dir: everything that is made goes here.
        data: folder of unlabelled images to pre-train on instead of Scenes; evaluation stays
            on Scenes, whose labels are known.
        seed: of the students: initialisation, masks, order of images.
        new_teacher: train the teacher instead of taking the one in ``assets/``.
        bank: labelled training images for kNN and linear probe.
        options: overrides for both students, by dotted config key.

    Returns:
        The table, and where the students are.

    Raises:
        RuntimeError: a stage failed; the message says which and shows its log.
        FileNotFoundError: there is no teacher.
    """
    if not new_teacher and not CARRIED.is_file():
        raise FileNotFoundError(
            f'The teacher {CARRIED} is not in this checkout: --train-teacher makes one.'
        )
    watch = Stopwatch()
    with watch('scenes'):
        make_scenes(SCENES)
    shared = student_options(data, seed) | (options or {})
    import_modules_from_strings(Config.fromfile(HGKD_CONFIG).custom_imports['imports'])
    init_default_scope('mmpretrain')
    # What MMEngine says of every single weight it initialises is for log files.
    MMLogger.get_instance('quickstart', log_level='WARNING')
    with watch('teacher'):
        teacher = train_teacher(work_dir / 'teacher', data=data) if new_teacher else CARRIED
    distil = {**shared, 'model.teachers.mim.checkpoint': str(teacher)}
    with watch('both students'):
        jobs = (
            Job(
                config=SPARK_CONFIG,
                work_dir=work_dir / 'spark',
                options=shared,
                title=PIXELS,
            ),
            Job(
                config=HGKD_CONFIG,
                work_dir=work_dir / 'hgkd',
                options=distil,
                title=HGKD,
            ),
        )
        reused = [job.title for job in jobs if job.done]
        spark, hgkd = train(*jobs)
    with watch('evaluation'):
        config, baseline = Config.fromfile(HGKD_CONFIG), Config.fromfile(SPARK_CONFIG)
        config.merge_from_dict(distil)
        baseline.merge_from_dict(shared)
        evaluation = scenes_evaluation(bank)
        student = build_student(config.model, str(hgkd), seed)
        untrained = build_student(baseline.model, None, seed)
        pixels = build_student(baseline.model, str(spark), seed)
        scores = {
            'random-init student': evaluation.score(untrained),
            PIXELS: evaluation.score(pixels),
            HGKD: evaluation.score(student),
            'teacher (MAE)': evaluation.score_teacher(student, 'mim'),
        }
        draw(
            work_dir / 'quickstart.png',
            student=student,
            dataset=evaluation.val,
            runs={'SparK': work_dir / 'spark', 'H-GKD': work_dir / 'hgkd'},
        )
    print_table(scores, classes=evaluation.classes)
    write_summary(
        work_dir / 'summary.json',
        scores,
        config,
        watch.seconds,
        seed=seed,
        data=str(data or 'Scenes'),
        labelled_images={'train': len(evaluation.train), 'val': len(evaluation.val)},
        teacher=str(teacher),
        student=str(hgkd),
        final_losses={job.title: last_losses(job.work_dir) for job in jobs},
        reused_from_a_former_run=reused,
    )
    return QuickstartResult(scores=scores, students={jobs[0].title: spark, jobs[1].title: hgkd})


def student_options(data: Path | None, seed: int) -> dict[str, object]:
    """Overrides that both students share."""
    options: dict[str, object] = {
        'randomness.seed': seed,
        'train_dataloader.dataset.data_root': str(SCENES),
        # Without instructions for it, bfloat16 is slower than float32 on a CPU.
        'optim_wrapper.type': 'BF16OptimWrapper' if cpu_has_bfloat16() else 'OptimWrapper',
    }
    return options if data is None else options | folder_options(data, HGKD_CONFIG)


def scenes_evaluation(bank: int) -> FrozenEvaluation:
    """Scores on Scenes: ``bank`` labelled training images against the validation images."""
    datasets = Config.fromfile(SCENES_CONFIG)
    train_dataset, val_dataset = datasets.cls_train_dataset, datasets.cls_val_dataset
    train_dataset.data_root = val_dataset.data_root = str(SCENES)
    return FrozenEvaluation(
        train_dataset=train_dataset, val_dataset=val_dataset, max_train_samples=bank
    )
