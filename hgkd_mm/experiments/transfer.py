"""What pre-training is worth when the whole network is trained on: three tasks, three starts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from hgkd_mm.benchmark import versions
from hgkd_mm.evaluation import build_labelled_dataset
from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.utils.environment import need_ops
from hgkd_mm.utils.launch import scaled_iterations
from hgkd_mm.utils.processor import cpu_has_bfloat16
from hgkd_mm.utils.subset import stratified_share
from hgkd_mm.utils.work_dir import held, read_scalars

from .places import CONFIGS, SCENES, WORK_DIRS
from .seeds import over_seeds, print_transfer_table, write_seeds_summary
from .students import pretrain_students
from .training import Job, folder_name, train

FROM_SCRATCH = 'from scratch'


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that a pre-trained backbone is fine-tuned on.

    Args:
        name: also the folder of its runs.
        config: trains the task from ``model.backbone.init_cfg``; beside it lies its twin from
            random weights, ``..._scratch.py``.
        metrics: column of the table to the scalar that validation logs, and what it is
            multiplied by to give percent.
        label_share: fraction of the labelled training images that is used.
    """

    name: str
    config: Path
    metrics: Mapping[str, tuple[str, float]]
    label_share: float = 1.0

    def config_of(self, start: str) -> Path:
        """The config for a start."""
        if start == FROM_SCRATCH:
            return self.config.with_name(f'{self.config.stem}_scratch.py')
        return self.config


_CLS = CONFIGS / 'cls' / 'r18_scenes.py'
_TOP1 = ('accuracy/top1', 1.0)
TASKS = (
    Task(
        name='classification-5pct',
        config=_CLS,
        metrics={'top-1, 5 % of labels': _TOP1},
        label_share=0.05,
    ),
    Task(name='classification', config=_CLS, metrics={'top-1, all labels': _TOP1}),
    Task(
        name='detection',
        config=CONFIGS / 'det' / 'mask-rcnn_r18_fpn_scenes.py',
        metrics={'box AP': ('coco/bbox_mAP', 100.0), 'mask AP': ('coco/segm_mAP', 100.0)},
    ),
    Task(
        name='segmentation',
        config=CONFIGS / 'seg' / 'upernet_r18_scenes.py',
        metrics={'mIoU': ('mIoU', 1.0)},
    ),
)


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """Outcome of :func:`transfer`.

    Attributes:
        scores: start to column to percent.
        jobs: task to start to its job, finished.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Job]] = field(default_factory=dict)


def transfer(
    *,
    work_dir: Path,
    scenes: Path,
    students: Mapping[str, Path],
    seed: int,
    length: float = 1.0,
    tasks: tuple[Task, ...] = TASKS,
    options: Mapping[str, object] | None = None,
) -> TransferResult:
    """Trains every task from scratch and from every student: same steps, data, order and seed.

    Args:
        work_dir: a folder for each task and start; finished runs are not repeated.
        scenes: folder of Scenes, with its COCO and ADE20K layouts.
        students: name to pre-training checkpoint (weights under ``backbone.``).
        seed: of the new weights, the order of images, and which labels the 5 % are.
        length: factor of all iterations.
        tasks: what to train.
        options: further overrides, by dotted config key.

    Raises:
        RuntimeError: a training stopped; the message shows its log.
    """
    starts: dict[str, Path | None] = {FROM_SCRATCH: None, **students}
    jobs = {
        task.name: {
            start: Job(
                config=task.config_of(start),
                work_dir=work_dir / task.name / folder_name(start),
                options=task_options(
                    task, scenes=scenes, checkpoint=checkpoint, seed=seed, length=length
                )
                | dict(options or {}),
                title=f'{task.name}, {start}',
            )
            for start, checkpoint in starts.items()
        }
        for task in tasks
    }
    train(*(job for by_start in jobs.values() for job in by_start.values()))
    scores = {
        start: {
            column: percent
            for task in tasks
            for column, percent in read_metrics(task, jobs[task.name][start].work_dir).items()
        }
        for start in starts
    }
    return TransferResult(scores=scores, jobs=jobs)


def task_options(
    task: Task, *, scenes: Path, checkpoint: Path | None, seed: int, length: float = 1.0
) -> dict[str, object]:
    """Overrides of a task's config for one start and seed."""
    config = Config.fromfile(task.config)
    options: dict[str, object] = {'randomness.seed': seed}
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options[f'{loader}.dataset.data_root'] = _moved(config[loader].dataset.data_root, scenes)
    for evaluator in ('val_evaluator', 'test_evaluator'):
        if 'ann_file' in config[evaluator]:
            options[f'{evaluator}.ann_file'] = _moved(config[evaluator].ann_file, scenes)
    if cpu_has_bfloat16():
        options['optim_wrapper.type'] = 'BF16OptimWrapper'
    if checkpoint is not None:
        options['model.backbone.init_cfg.checkpoint'] = str(checkpoint)
    if task.label_share < 1:
        dataset = config.train_dataloader.dataset | dict(data_root=str(scenes))
        options['train_dataloader.dataset.indices'] = labelled_share(
            dataset, task.label_share, seed
        )
    if length != 1:
        options |= lengthened(config, length)
    return options


def labelled_share(dataset: dict, share: float, seed: int) -> list[int]:
    """Indices of a stratified random part of a labelled dataset, in order.

    Args:
        dataset: config of an mmpretrain dataset.
        share: fraction of each class, more than 0 and less than 1.
        seed: of the choice.
    """
    built = build_labelled_dataset(dataset, key='train_dataloader.dataset')
    return stratified_share(built.get_gt_labels(), share, seed=seed)


def lengthened(config: Config, factor: float) -> dict[str, object]:
    """Overrides that make an iteration-based training longer; its warm-up stays as it is."""
    warm_ups = tuple(
        f'param_scheduler.{index}.'
        for index, schedule in enumerate(config.param_scheduler)
        if schedule.type == 'LinearLR'
    )
    scaled = scaled_iterations(config, factor)
    return {key: value for key, value in scaled.items() if not key.startswith(warm_ups)}


def read_metrics(task: Task, work_dir: Path) -> dict[str, float]:
    """Last validation of a run, in percent by column.

    Raises:
        RuntimeError: the run logged no such metric.
    """
    scalars = read_scalars(work_dir)
    found = {}
    for column, (name, factor) in task.metrics.items():
        if name not in scalars:
            raise RuntimeError(
                f'The log in {work_dir} has no {name}: its validation did not run. Delete that '
                'folder and start again.'
            )
        found[column] = factor * float(scalars[name].values[-1])
    return found


def _moved(path: str, scenes: Path) -> str:
    """A path of the config below its data/scenes, below another folder."""
    return str(scenes / Path(path).relative_to('data/scenes'))


def report(work_dir: Path, result: TransferResult, **facts: object) -> None:
    """Prints the table and writes summary.json.

    Args:
        work_dir: where it goes.
        result: of :func:`transfer`.
        facts: kept in the summary.
    """
    print_transfer_table(over_seeds([result.scores]), 'Transfer on Scenes, in %')
    record = {
        'scores': result.scores,
        'runs': {
            task: {start: _run_facts(job) for start, job in jobs.items()}
            for task, jobs in result.jobs.items()
        },
        'versions': versions(get_device()),
        **facts,
    }
    (work_dir / 'summary.json').write_text(json.dumps(record, indent=2, default=str))


def _run_facts(job: Job) -> dict[str, object]:
    return {
        'work_dir': str(job.work_dir),
        'iterations': job.iterations,
        'batch_size': job.settings.train_dataloader.batch_size,
        'optim_wrapper': job.settings.optim_wrapper.type,
        'seconds': job.seconds,
    }


def main() -> None:
    """Prints the transfer table over seeds and writes its summary."""
    parser = argparse.ArgumentParser(
        description='The transfer table over several seeds, pre-training included.'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--length', type=float, default=1.0, help="factor of the tasks' iterations")
    parser.add_argument(
        '--tasks', nargs='+', choices=[task.name for task in TASKS], help='default: all'
    )
    parser.add_argument('--work-dir', type=Path, default=WORK_DIRS / 'transfer')
    args = parser.parse_args()
    tasks = tuple(task for task in TASKS if not args.tasks or task.name in args.tasks)
    tables, title = [], f'Transfer on Scenes, seeds {args.seeds}, length {args.length:g}, in %'
    try:
        need_ops('Mask R-CNN, which the transfer table trains,')
        with held(args.work_dir):
            make_scenes(SceneFolder(out=SCENES))
            for seed in args.seeds:
                work_dir = args.work_dir.resolve() / f'seed-{seed}'
                students = pretrain_students(work_dir=work_dir / 'pretrain', seed=seed)
                result = transfer(
                    work_dir=work_dir,
                    scenes=SCENES,
                    students=students.checkpoints,
                    seed=seed,
                    length=args.length,
                    tasks=tasks,
                )
                report(work_dir, result, seed=seed)
                tables.append(result.scores)
        table = over_seeds(tables)
    except (RuntimeError, ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'transfer_table: {error}')
    print_transfer_table(table, title)
    # Part of the tasks is another table, which does not take the place of the whole.
    name = '-'.join(['summary', *(args.tasks or [])])
    summary = args.work_dir / f'{name}.json'
    write_seeds_summary(summary, table, seeds=args.seeds, length=args.length)
    print(f'Written to {summary}')


if __name__ == '__main__':
    main()
