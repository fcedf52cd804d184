"""The quickstart from beginning to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from .data import ROOT
from .evaluation import FrozenEvaluation, Score, build_student
from .pretraining import HGKD, PIXELS, SCENES, Stopwatch, pretrain_students
from .report import draw, last_losses, print_table, write_summary
from .setup_times import setup_times

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


def quickstart(
    *,
    work_dir: Path,
    data: Path | None = None,
    seed: int = 0,
    new_teacher: bool = False,
    epochs: int | None = None,
    bank: int = 1200,
    options: dict[str, object] | None = None,
    setup: Path | None = None,
) -> QuickstartResult:
    """Scenes, a teacher, a pixel baseline and an H-GKD student, and what each is worth.

    Stages that a former call finished with the same settings are not repeated.

    Args:
        work_dir: everything that is made goes here.
        data: folder of unlabelled images to pre-train on instead of Scenes; evaluation stays
            on Scenes, whose labels are known.
        seed: of the students: initialisation, masks, order of images.
        new_teacher: train the teacher instead of taking the one in ``assets/``.
        epochs: of both students; as many as their configs say if None.
        bank: labelled training images for kNN and linear probe.
        options: overrides for both students, by dotted config key.
        setup: what tools/setup_env.sh wrote of its times, if it ran just before.

    Returns:
        The table, and where the students are.

    Raises:
        RuntimeError: a stage failed; the message says which and shows its log.
        FileNotFoundError: there is no teacher, or no file ``setup``.
        ValueError: ``setup`` does not hold the times.
    """
    watch, setup_seconds = Stopwatch(), setup_times(setup)
    students = pretrain_students(
        work_dir=work_dir,
        data=data,
        seed=seed,
        new_teacher=new_teacher,
        epochs=epochs,
        options=options,
        watch=watch,
    )
    hgkd, spark = students.jobs[HGKD], students.jobs[PIXELS]
    with watch('evaluation'):
        evaluation = scenes_evaluation(SCENES, bank)
        student = build_student(hgkd.settings.model, str(hgkd.checkpoint), seed)
        untrained = build_student(spark.settings.model, None, seed)
        pixels = build_student(spark.settings.model, str(spark.checkpoint), seed)
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
            runs={'SparK': spark.work_dir, 'H-GKD': hgkd.work_dir},
        )
    print_table(scores, classes=evaluation.classes)
    write_summary(
        work_dir / 'summary.json',
        scores,
        hgkd.settings,
        watch.seconds,
        setup_seconds=setup_seconds,
        seed=seed,
        epochs=hgkd.settings.train_cfg.max_epochs,
        data=str(data or 'Scenes'),
        labelled_images={'train': len(evaluation.train), 'val': len(evaluation.val)},
        teacher=str(students.teacher),
        student=str(hgkd.checkpoint),
        final_losses={job.title: last_losses(job.work_dir) for job in students.jobs.values()},
        reused_from_a_former_run=list(students.reused),
    )
    return QuickstartResult(scores=scores, students=students.checkpoints)


def scenes_evaluation(scenes: Path, bank: int) -> FrozenEvaluation:
    """Scores on Scenes: ``bank`` labelled training images against the validation images."""
    datasets = Config.fromfile(SCENES_CONFIG)
    train_dataset, val_dataset = datasets.cls_train_dataset, datasets.cls_val_dataset
    train_dataset.data_root = val_dataset.data_root = str(scenes)
    return FrozenEvaluation(
        train_dataset=train_dataset, val_dataset=val_dataset, max_train_samples=bank
    )
