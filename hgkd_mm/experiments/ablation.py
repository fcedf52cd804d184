"""Ablations: variants of a pre-training at equal steps and seeds, as one table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from mmengine.config import Config

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.utils.files import write_whole
from hgkd_mm.utils.work_dir import held

from .evaluation import FrozenEvaluation, build_student
from .places import RESOURCES, SCENES, WORK_DIRS
from .seeds import over_seeds, print_transfer_table, write_seeds_summary
from .students import prepare, student_options
from .training import Job, folder_name, train
from .transfer import FROM_SCRATCH, TASKS, transfer

FEW_LABELS = TASKS[:1]
UNTRAINED = 'random init, from scratch'


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of an ablation.

    Args:
        name: of the row.
        config: a pre-training on Scenes.
        options: overrides by dotted key.
    """

    name: str
    config: Path
    options: Mapping[str, object] = field(default_factory=dict)


def read_variants(path: Path) -> tuple[Variant, ...]:
    """The ``variants`` of a config file.

    Args:
        path: the file; it names configs as ``configs/...``.

    Raises:
        FileNotFoundError: it, or a config that it names, is not there.
        ValueError: it has no variants, or two of one name.
    """
    if not path.is_file():
        raise FileNotFoundError(f'There is no list of variants {path}.')
    listed = Config.fromfile(path).get('variants')
    if not listed:
        raise ValueError(f'{path} has no variants: see configs/_base_/ablations/r18_scenes.py.')
    variants = tuple(
        Variant(
            name=entry['name'],
            config=RESOURCES / entry['config'],
            options=dict(entry.get('options') or {}),
        )
        for entry in listed
    )
    names = [variant.name for variant in variants]
    if len({folder_name(name) for name in names}) < len(names):
        raise ValueError(f'Two variants of {path} have one name, and so one folder: {names}.')
    for variant in variants:
        if not variant.config.is_file():
            raise FileNotFoundError(
                f"Variant '{variant.name}' names {variant.config}, which is not there."
            )
    return variants


def pretraining_jobs(
    variants: Sequence[Variant],
    *,
    work_dir: Path,
    seed: int,
    options: Mapping[str, object] | None = None,
) -> dict[str, Job]:
    """A training for each variant, all of the same length.

    Args:
        variants: rows.
        work_dir: a folder for each.
        seed: of initialization, masks and order of images; starting weights are drawn after those
            of the heads, so rows of other heads have others.
        options: further overrides for all.

    Raises:
        ValueError: they differ in steps or batch, so that the table would compare those too; or
            two do not differ at all.
    """
    jobs = {
        variant.name: Job(
            config=variant.config,
            work_dir=work_dir / folder_name(variant.name),
            options=student_options(None, seed) | dict(options or {}) | dict(variant.options),
            title=variant.name,
        )
        for variant in variants
    }
    settings = {name: job.settings.to_dict() for name, job in jobs.items()}
    for one, other in combinations(settings, 2):
        if settings[one] == settings[other]:
            raise ValueError(
                f"Variants '{one}' and '{other}' are the same training: correct the "
                'options of one of them.'
            )
    lengths = {name: _steps_and_batch(job) for name, job in jobs.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f'The variants differ in (steps, batch size): {lengths}. Make them equal.')
    return jobs


def ablate(
    variants: Sequence[Variant],
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
        variants: rows.
        work_dir: everything goes here.
        seed: of pre-training, of the labels of the fine-tuning, and of new weights.
        scenes: folder of Scenes.
        bank: labelled images for kNN and linear probe.
        length: factor of the fine-tuning's steps.
        options: overrides for all trainings.

    Returns:
        Row to column to percent; the first row is a network that was not pre-trained.

    Raises:
        RuntimeError: a training stopped; the message shows its log.
        ValueError: the variants differ in length.
    """
    prepare()
    data = {'train_dataloader.dataset.data_root': str(scenes)}
    options = dict(options or {})
    jobs = pretraining_jobs(
        variants, work_dir=work_dir / 'pretrain', seed=seed, options=data | options
    )
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
    frozen = _FrozenScores(FrozenEvaluation(scenes, bank), bank)
    untrained = next(iter(jobs.values()))
    table = {UNTRAINED: frozen.of(untrained, seed, trained=False) | tuned[FROM_SCRATCH]}
    for name, job in jobs.items():
        table[name] = frozen.of(job, seed) | tuned[name]
    return table


def _steps_and_batch(job: Job) -> tuple[int, int]:
    joined = job.settings.optim_wrapper.get('accumulative_counts', 1)
    return job.iterations // joined, joined * job.settings.train_dataloader.batch_size


class _FrozenScores:
    """kNN and linear probe of students, kept beside their checkpoints."""

    def __init__(self, evaluation: FrozenEvaluation, bank: int) -> None:
        self.evaluation = evaluation
        self.bank = bank

    def of(self, job: Job, seed: int, *, trained: bool = True) -> dict[str, float]:
        # A job that is trained anew empties its folder, so that no score outlives its weights.
        kept = job.work_dir / f'{"frozen" if trained else "untrained"}-{self.bank}.json'
        if kept.is_file():
            return json.loads(kept.read_text())
        checkpoint = job.checkpoint if trained else None
        score = self.evaluation.score(build_student(job.settings.model, checkpoint, seed))
        found = {'kNN': score.knn, 'linear probe': score.linear}
        write_whole(kept, json.dumps(found).encode())
        return found


def main() -> None:
    """Prints the table of an ablation over seeds and writes its summary."""
    parser = argparse.ArgumentParser(description='What each part of a pre-training is worth.')
    parser.add_argument('variants', type=Path, help='config file with a list of variants')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='some of the variants')
    parser.add_argument('--length', type=float, default=1.0, help="factor of fine-tuning's steps")
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/ablation/<name>')
    args = parser.parse_args()
    work_dir = (args.work_dir or WORK_DIRS / 'ablation' / args.variants.stem).resolve()
    try:
        variants = read_variants(args.variants)
        unknown = set(args.only or ()) - {variant.name for variant in variants}
        if unknown:
            raise ValueError(f'--only names {sorted(unknown)}, which {args.variants} has not.')
        make_scenes(SceneFolder(out=SCENES), layouts=False)
        chosen = [v for v in variants if not args.only or v.name in args.only]
        with held(work_dir):
            tables = [
                ablate(chosen, work_dir=work_dir / f'seed-{seed}', seed=seed, length=args.length)
                for seed in args.seeds
            ]
        table = over_seeds(tables)
    except (RuntimeError, ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'ablate: {error}')
    print_transfer_table(table, f'{args.variants.stem}, seeds {args.seeds}, top-1 in %')
    summary = work_dir / 'summary.json'
    write_seeds_summary(summary, table, seeds=args.seeds, length=args.length)
    print(f'Written to {summary}')


if __name__ == '__main__':
    main()
