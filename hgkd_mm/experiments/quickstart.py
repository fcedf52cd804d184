"""The quickstart: Scenes, a teacher, two students, and a table of what they learned."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import mmcv
import mmengine
import mmpretrain
import torchvision
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.utils import get_git_hash
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

from hgkd_mm import __version__
from hgkd_mm.benchmark import versions
from hgkd_mm.evaluation import isolated_rng
from hgkd_mm.inspect import InputFormat, distillation_columns, draw_columns
from hgkd_mm.scenes import CLASSES, SceneFolder, make_scenes
from hgkd_mm.utils.environment import need_ops
from hgkd_mm.utils.launch import add_config_flag
from hgkd_mm.utils.work_dir import held, read_scalars

from .evaluation import FrozenEvaluation, Score, build_student
from .places import SCENES, WORK_DIRS
from .students import HGKD, PIXELS, Stopwatch, Students, pretrain_students
from .transfer import report, transfer

# What the figures depend on beside torch.
_PACKAGES = (mmengine, mmcv, mmpretrain, torchvision)
NO_SETUP = {'download_s': 0, 'install_s': 0, 'mmcv_s': 0, 'total_s': 0}


def quickstart(
    *,
    work_dir: Path,
    data: Path | None = None,
    seed: int = 0,
    bank: int = 1200,
    setup: Path | None = None,
    **how: object,
) -> tuple[dict[str, Score], Students]:
    """Trains a pixel baseline and an H-GKD student and scores both, and their teacher.

    Args:
        work_dir: everything that is made goes here.
        data: folder of unlabelled images to pre-train on instead of Scenes; evaluation stays
            on Scenes, whose labels are known.
        seed: of the students.
        bank: labelled training images for kNN and linear probe.
        setup: what tools/setup_env.sh wrote of its times, if it ran just before.
        how: further arguments of `pretrain_students`.

    Returns:
        Rows of the table, and the students.

    Raises:
        RuntimeError: a stage failed; the message says which and shows its log.
        FileNotFoundError: there is no teacher, or no file ``setup``.
        ValueError: ``setup`` does not hold the times.
    """
    watch, setup_seconds = Stopwatch(), setup_times(setup)
    students = pretrain_students(work_dir=work_dir, data=data, seed=seed, watch=watch, **how)
    hgkd, spark = students.jobs[HGKD], students.jobs[PIXELS]
    with watch('evaluation'):
        evaluation = FrozenEvaluation(SCENES, bank)
        student = build_student(hgkd.settings.model, hgkd.checkpoint, seed)
        untrained = build_student(spark.settings.model, None, seed)
        pixels = build_student(spark.settings.model, spark.checkpoint, seed)
        scores = {
            'random-init student': evaluation.score(untrained),
            PIXELS: evaluation.score(pixels),
            HGKD: evaluation.score(student),
            'teacher (MAE)': evaluation.score_teacher(student, 'mim'),
        }
        draw(
            work_dir / 'quickstart.png',
            student=student,
            config=hgkd.settings,
            dataset=evaluation.val,
        )
    print_table(scores)
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
        final_losses={job.title: _last_losses(job.work_dir) for job in students.jobs.values()},
        reused_from_a_former_run=list(students.reused),
    )
    return scores, students


def setup_times(path: Path | None) -> dict[str, int]:
    """Seconds of downloads, of installation, of mmcv (which may be compiled), and their sum.

    Args:
        path: what tools/setup_env.sh wrote, with zeros if the environment was there; None where
            it did not run.

    Raises:
        ValueError: the file does not hold these four numbers.
    """
    if path is None:
        return dict(NO_SETUP)
    times = json.loads(path.read_text())
    if not isinstance(times, dict) or set(times) != set(NO_SETUP):
        raise ValueError(
            f'{path} (environment variable HGKD_SETUP_TIMES) holds {times}, expected are '
            f'{", ".join(NO_SETUP)}: run tools/setup_env.sh again.'
        )
    return times


def print_table(scores: dict[str, Score]) -> None:
    """Prints kNN and linear-probe top-1 of every row."""
    chance = 100 / len(CLASSES)
    table = Table(title=f'Frozen features on Scenes, top-1 in % (chance {chance:.1f})')
    table.add_column('features of')
    table.add_column('kNN', justify='right')
    table.add_column('linear probe', justify='right')
    for name, score in scores.items():
        table.add_row(name, f'{score.knn:.1f}', f'{score.linear:.1f}')
    Console().print(table)


def write_summary(
    path: Path, scores: dict[str, Score], config: Config, seconds: dict[str, float], **facts: object
) -> None:
    """Writes all figures, with what they were made with, as JSON.

    Args:
        path: file to write.
        scores: rows of the table.
        config: config of the H-GKD run.
        seconds: time of each stage.
        facts: anything else, such as the seed and the data folder.
    """
    packages = {module.__name__: module.__version__ for module in _PACKAGES}
    made_with = {'hgkd_mm': __version__, 'commit': get_git_hash(digits=12), **packages}
    record = {
        'scores': {name: vars(score) for name, score in scores.items()},
        'seconds': {name: round(value, 1) for name, value in seconds.items()},
        'versions': versions('cpu') | made_with,
        'config': config.to_dict(),
        **facts,
    }
    path.write_text(json.dumps(record, indent=2, default=str))


def _last_losses(work_dir: Path) -> dict[str, float]:
    scalars = read_scalars(work_dir)
    return {name: curve.values[-1] for name, curve in scalars.items() if 'loss' in name}


def draw(
    path: Path, *, student: nn.Module, config: Config, dataset: Dataset, count: int = 5
) -> None:
    """Draws what the student sees, and its features and similarities beside the teacher's.

    Args:
        path: PNG to write.
        student: trained HGKD.
        config: that it was trained with.
        dataset: labelled data set whose images are shown.
        count: number of images, of different classes.
    """
    step = max(1, len(dataset) // count)
    batch = default_collate([dataset[i * step + step // 2] for i in range(count)])
    images: Tensor = student.data_preprocessor(batch, False)['inputs']
    with isolated_rng():
        mask = student.draw_mask(images)
    shown = distillation_columns(student, images, mask, input_format=InputFormat.of(config))
    draw_columns(shown, path, title='H-GKD on Scenes')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description='From nothing to a distilled ResNet-18 on this machine.'
    )
    parser.add_argument('--data', type=Path, help='folder of unlabelled images')
    parser.add_argument('--train-teacher', action='store_true', help='train the MAE teacher too')
    parser.add_argument(
        '--transfer', action='store_true', help='go on with classification, detection, segmentation'
    )
    parser.add_argument('--epochs', type=int, help='of both students (1; with --transfer 4)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=WORK_DIRS / 'quickstart')
    add_config_flag(parser, example='train_cfg.max_epochs=8, of both students')
    return parser.parse_args()


def main() -> None:
    """Runs the quickstart, and the transfer if asked for."""
    args = parse_args()
    if args.data is not None and not args.data.is_dir():
        sys.exit(f'quickstart: --data {args.data} is not a folder.')
    if args.epochs is not None and args.epochs < 1:
        sys.exit(f'quickstart: --epochs takes a number from 1, not {args.epochs}.')
    work_dir = args.work_dir.resolve()
    try:
        if args.transfer:
            need_ops('Mask R-CNN, which --transfer trains,')
        with held(work_dir):
            _run(args, work_dir)
    except (RuntimeError, ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'quickstart: {error}')


def _run(args: argparse.Namespace, work_dir: Path) -> None:
    _, students = quickstart(
        work_dir=work_dir,
        data=args.data and args.data.resolve(),
        seed=args.seed,
        new_teacher=args.train_teacher,
        epochs=args.epochs or (4 if args.transfer else 1),
        options=args.cfg_options,
        # set by tools/quickstart.sh, which ran the set-up just before
        setup=Path(times) if (times := os.environ.get('HGKD_SETUP_TIMES')) else None,
    )
    print(f'Written to {work_dir}: summary.json, quickstart.png, hgkd/last.pth')
    if args.transfer:
        make_scenes(SceneFolder(out=SCENES))
        folder = work_dir / 'transfer'
        starts = students.checkpoints
        result = transfer(work_dir=folder, scenes=SCENES, students=starts, seed=args.seed)
        report(folder, result, seed=args.seed)
        print(f'Written to {folder}: summary.json')


if __name__ == '__main__':
    main()
