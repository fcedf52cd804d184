"""Ablations: variants of a pre-training at equal steps and seeds, as one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.utils.work_dir import held

from . import RESOURCES, SCENES, WORK_DIRS
from .scores import FrozenEvaluation, build_student, print_table, write_summary
from .students import prepare, student_options
from .training import Job, folder_name, train
from .transfer import FROM_SCRATCH, TASKS, transfer

FEW_LABELS = TASKS[:1]
UNTRAINED = 'random init, from scratch'


def pretraining_jobs(
    path: Path, *, work_dir: Path, seed: int, options: Mapping[str, object] | None = None
) -> dict[str, Job]:
    """A training for each of the ``variants`` of a config file, all of the same length.

    Args:
        path: the file; a variant is a ``name``, a ``config`` as ``configs/...``, and ``options``,
            overrides by dotted key.
        work_dir: a folder for each.
        seed: of initialization, masks and order of images; starting weights are drawn after those
            of the heads, so rows of other heads have others.
        options: further overrides for all.

    Raises:
        ValueError: two have one name; or they differ in steps or batch, so that the table would
            compare those too.
    """
    jobs = [
        Job(
            config=RESOURCES / variant['config'],
            work_dir=work_dir / folder_name(variant['name']),
            options={
                **student_options(None, seed),
                **(options or {}),
                **variant.get('options', {}),
            },
            title=variant['name'],
        )
        for variant in Config.fromfile(path).variants
    ]
    if len({job.work_dir for job in jobs}) < len(jobs):
        names = [job.title for job in jobs]
        raise ValueError(f'Two variants of {path} have one name, and so one folder: {names}.')
    lengths = {job.title: _steps_and_batch(job) for job in jobs}
    if len(set(lengths.values())) > 1:
        raise ValueError(f'The variants differ in (steps, batch size): {lengths}. Make them equal.')
    return {job.title: job for job in jobs}


def ablate(
    jobs: Mapping[str, Job],
    *,
    work_dir: Path,
    seed: int,
    scenes: Path = SCENES,
    bank: int = 2400,
    length: float = 1.0,
    options: Mapping[str, object] | None = None,
) -> dict[str, dict[str, float]]:
    """Trains and scores every variant for one seed; finished runs are not repeated.

    Args:
        jobs: the pre-trainings by row, of `pretraining_jobs`.
        work_dir: of the fine-tuning.
        seed: of the labels of the fine-tuning, and of new weights.
        scenes: folder of Scenes.
        bank: labelled images for kNN and linear probe.
        length: factor of the fine-tuning's steps.
        options: overrides for the fine-tuning.

    Returns:
        Row to column to percent; the first row is a network that was not pre-trained.
    """
    prepare()
    train(*jobs.values())
    tuned = transfer(
        work_dir=work_dir,
        scenes=scenes,
        students={name: job.checkpoint for name, job in jobs.items()},
        seed=seed,
        length=length,
        tasks=FEW_LABELS,
        options=options,
    ).scores
    evaluation = FrozenEvaluation(scenes, bank)
    untrained = build_student(next(iter(jobs.values())).settings.model, None, seed)
    table = {UNTRAINED: evaluation.score(untrained) | tuned[FROM_SCRATCH]}
    for name, job in jobs.items():
        student = build_student(job.settings.model, job.checkpoint, seed)
        table[name] = evaluation.score(student) | tuned[name]
    return table


def _steps_and_batch(job: Job) -> tuple[int, int]:
    joined = job.settings.optim_wrapper.get('accumulative_counts', 1)
    return job.iterations // joined, joined * job.settings.train_dataloader.batch_size


def main() -> None:
    """Prints the table of an ablation over seeds and writes its summary."""
    parser = argparse.ArgumentParser(description='What each part of a pre-training is worth.')
    parser.add_argument('variants', type=Path, help='config file with a list of variants')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='some of the variants')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/ablation/<name>')
    args = parser.parse_args()
    work_dir = (args.work_dir or WORK_DIRS / 'ablation' / args.variants.stem).resolve()
    tables = []
    try:
        make_scenes(SceneFolder(out=SCENES), layouts=False)
        with held(work_dir):
            for seed in args.seeds:
                folder = work_dir / f'seed-{seed}'
                jobs = pretraining_jobs(args.variants, work_dir=folder / 'pretrain', seed=seed)
                if unknown := set(args.only or ()) - set(jobs):
                    raise ValueError(f'--only names {sorted(unknown)}; there are {[*jobs]}.')
                chosen = {name: jobs[name] for name in jobs if name in (args.only or jobs)}
                tables.append(ablate(chosen, work_dir=folder, seed=seed))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f'ablate: {error}')
    title = f'{args.variants.stem}, seeds {args.seeds}, top-1 in %'
    print_table(title, tables, head='pre-training')
    write_summary(work_dir / 'summary.json', tables, seeds=args.seeds)
    print(f'Written to {work_dir / "summary.json"}')


if __name__ == '__main__':
    main()
