"""What pre-training is worth when the whole network is trained on: three tasks, three starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from hgkd_mm.evaluation import build_labelled_dataset
from hgkd_mm.inspect import read_scalars
from hgkd_mm.utils.iterations import scaled_iterations
from hgkd_mm.utils.subset import stratified_share

from .data import ROOT, cpu_has_bfloat16
from .job import Job, folder_name
from .training import train

FROM_SCRATCH = 'from scratch'


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that a pre-trained backbone is put to.

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


_CLS = ROOT / 'configs' / 'cls' / 'r18_scenes.py'
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
        config=ROOT / 'configs' / 'det' / 'mask-rcnn_r18_fpn_scenes.py',
        metrics={'box AP': ('coco/bbox_mAP', 100.0), 'mask AP': ('coco/segm_mAP', 100.0)},
    ),
    Task(
        name='segmentation',
        config=ROOT / 'configs' / 'seg' / 'upernet_r18_scenes.py',
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

    Returns:
        The table and the jobs behind it.

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
