"""What pre-training is worth when the whole network is trained on: three tasks, three starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from hgkd_mm.datasets.labelled_folder import stratified_share
from hgkd_mm.evaluation import build_labelled_dataset
from hgkd_mm.utils.environment import need_ops
from hgkd_mm.utils.launch import scaled_iterations
from hgkd_mm.utils.process import cpu_has_bfloat16
from hgkd_mm.utils.work_dir import held, read_scalars

from . import CONFIGS, SCENES, WORK_DIRS
from .scores import print_table, write_summary
from .students import pretrain_students
from .training import Job, folder_name, train

FROM_SCRATCH = 'from scratch'


@dataclass(frozen=True)
class Task:
    """A task that a pre-trained backbone is fine-tuned on."""

    name: str  # also the folder of its runs
    config: Path  # starts from ``model.backbone.init_cfg``; its twin is `from_scratch`
    metrics: Mapping[str, tuple[str, float]]  # column to a logged scalar and its factor to percent
    label_share: float = 1.0  # fraction of the labelled training images that is used


_CLS = CONFIGS / 'cls' / 'r18_scenes.py'
_TOP1 = ('accuracy/top1', 1.0)
TASKS = (
    Task('classification-5pct', _CLS, {'top-1, 5 % of labels': _TOP1}, label_share=0.05),
    Task('classification', _CLS, {'top-1, all labels': _TOP1}),
    Task(
        'detection',
        CONFIGS / 'det' / 'mask-rcnn_r18_fpn_scenes.py',
        {'box AP': ('coco/bbox_mAP', 100.0), 'mask AP': ('coco/segm_mAP', 100.0)},
    ),
    Task('segmentation', CONFIGS / 'seg' / 'upernet_r18_scenes.py', {'mIoU': ('mIoU', 1.0)}),
)


class TransferResult(NamedTuple):
    """Outcome of :func:`transfer`."""

    scores: dict[str, dict[str, float]]  # start to column to percent
    jobs: dict[str, dict[str, Job]]  # task to start to its job, finished


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
        work_dir: a folder for each task and start.
        scenes: folder of Scenes, with its COCO and ADE20K layouts.
        students: name to pre-training checkpoint (weights under ``backbone.``).
        seed: of the new weights, the order of images, and which labels the 5 % are.
        length: factor of all iterations.
        tasks: what to train.
        options: further overrides, by dotted config key.
    """
    starts: dict[str, Path | None] = {FROM_SCRATCH: None, **students}
    jobs = {
        task.name: {
            start: Job(
                config=task.config if checkpoint else from_scratch(task.config),
                work_dir=work_dir / task.name / folder_name(start),
                options={
                    **task_options(task, scenes, checkpoint, seed=seed, length=length),
                    **(options or {}),
                },
                title=f'{task.name}, {start}',
            )
            for start, checkpoint in starts.items()
        }
        for task in tasks
    }
    train(*(job for by_start in jobs.values() for job in by_start.values()))
    scores: dict[str, dict[str, float]] = {start: {} for start in starts}
    for task in tasks:
        for start, job in jobs[task.name].items():
            scores[start] |= read_metrics(task, job.work_dir)
    return TransferResult(scores, jobs)


def from_scratch(config: Path) -> Path:
    """The twin of a task's config that starts from random weights."""
    return config.with_name(f'{config.stem}_scratch.py')


def task_options(
    task: Task, scenes: Path, checkpoint: Path | None, *, seed: int, length: float = 1.0
) -> dict[str, object]:
    """Overrides of a task's config for one start and seed."""
    config = Config.fromfile(task.config)
    options: dict[str, object] = {'randomness.seed': seed, **lengthened(config, length)}
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
        # Indices of a stratified random part, which the seed draws.
        dataset = config.train_dataloader.dataset | dict(data_root=str(scenes))
        built = build_labelled_dataset(dataset, key='train_dataloader.dataset')
        share = stratified_share(built.get_gt_labels(), task.label_share, seed=seed)
        options['train_dataloader.dataset.indices'] = share
    return options


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
    """Prints the table and writes summary.json."""
    print_table('Transfer on Scenes, in %', [result.scores], head='start of the backbone')
    write_summary(work_dir / 'summary.json', [result.scores], **facts)


def main() -> None:
    """Prints the transfer table over seeds and writes its summary."""
    parser = argparse.ArgumentParser(
        description='The transfer table over several seeds, pre-training included.'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--length', type=float, default=1.0, help="factor of the tasks' iterations")
    parser.add_argument('--work-dir', type=Path, default=WORK_DIRS / 'transfer')
    args = parser.parse_args()
    tables = []
    try:
        need_ops('Mask R-CNN, which the transfer table trains,')
        with held(args.work_dir):
            for seed in args.seeds:
                work_dir = args.work_dir.resolve() / f'seed-{seed}'
                jobs = pretrain_students(
                    work_dir=work_dir / 'pretrain', seconds={}, layouts=True, seed=seed
                )
                result = transfer(
                    work_dir=work_dir,
                    scenes=SCENES,
                    students={name: job.checkpoint for name, job in jobs.items()},
                    seed=seed,
                    length=args.length,
                )
                report(work_dir, result, seed=seed)
                tables.append(result.scores)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f'transfer_table: {error}')
    title = f'Transfer on Scenes, seeds {args.seeds}, length {args.length:g}, in %'
    print_table(title, tables, head='start of the backbone')
    summary = args.work_dir / 'summary.json'
    write_summary(summary, tables, seeds=args.seeds, length=args.length)
    print(f'Written to {summary}')


if __name__ == '__main__':
    main()
