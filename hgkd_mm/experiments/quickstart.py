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
from torch import Tensor, nn
from torch.utils.data import Dataset

from hgkd_mm import __version__
from hgkd_mm.benchmark import versions
from hgkd_mm.evaluation import isolated_rng
from hgkd_mm.inspect import InputFormat, distillation_columns, draw_columns
from hgkd_mm.utils.environment import need_ops
from hgkd_mm.utils.launch import add_config_flag
from hgkd_mm.utils.work_dir import held

from . import SCENES, WORK_DIRS
from .scores import FrozenEvaluation, build_student, print_table
from .students import HGKD, PIXELS, pretrain_students, timed
from .training import Job
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
) -> tuple[dict[str, dict[str, float]], dict[str, Job]]:
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
        Rows of the table, and the students' trainings.
    """
    seconds: dict[str, float] = {}
    jobs = pretrain_students(work_dir=work_dir, seconds=seconds, data=data, seed=seed, **how)
    hgkd, spark = jobs[HGKD], jobs[PIXELS]
    with timed(seconds, 'evaluation'):
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
    print_table('Frozen features on Scenes, top-1 in % (chance 8.3)', [scores], head='features of')
    packages = {module.__name__: module.__version__ for module in _PACKAGES}
    made_with = {'hgkd_mm': __version__, 'commit': get_git_hash(digits=12), **packages}
    summary = {
        'scores': {
            row: {'knn': score['kNN'], 'linear': score['linear probe']}
            for row, score in scores.items()
        },
        'seconds': seconds,
        # downloads, installation, mmcv (which may be compiled), and their sum
        'setup_seconds': json.loads(setup.read_text()) if setup else NO_SETUP,
        'versions': versions('cpu') | made_with,
        'config': hgkd.settings.to_dict(),
        'seed': seed,
        'data': str(data or 'Scenes'),
        'labelled_images': {'train': len(evaluation.train), 'val': len(evaluation.val)},
        'student': str(hgkd.checkpoint),
    }
    (work_dir / 'summary.json').write_text(json.dumps(summary, indent=2, default=str))
    return scores, jobs


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


def main() -> None:
    """Runs the quickstart, and the transfer if asked for."""
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
    args = parser.parse_args()
    work_dir = args.work_dir.resolve()
    try:
        if args.transfer:
            need_ops('Mask R-CNN, which --transfer trains,')
        with held(work_dir):
            _run(args, work_dir)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f'quickstart: {error}')


def _run(args: argparse.Namespace, work_dir: Path) -> None:
    _, jobs = quickstart(
        work_dir=work_dir,
        data=args.data and args.data.resolve(),
        seed=args.seed,
        layouts=args.transfer,
        new_teacher=args.train_teacher,
        epochs=args.epochs or (4 if args.transfer else 1),
        options=args.cfg_options,
        # set by tools/quickstart.sh, which ran the set-up just before
        setup=Path(times) if (times := os.environ.get('HGKD_SETUP_TIMES')) else None,
    )
    print(f'Written to {work_dir}: summary.json, quickstart.png, hgkd/last.pth')
    if args.transfer:
        folder = work_dir / 'transfer'
        starts = {name: job.checkpoint for name, job in jobs.items()}
        result = transfer(work_dir=folder, scenes=SCENES, students=starts, seed=args.seed)
        report(folder, result, seed=args.seed)
        print(f'Written to {folder}: summary.json')


if __name__ == '__main__':
    main()
