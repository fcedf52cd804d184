"""The transfer table over several seeds, pre-training included; finished runs are not repeated.

python tools/transfer_table.py --seeds 0 1 2 --length 1.5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.device import get_device  # noqa: E402

from hgkd_mm.benchmark import versions  # noqa: E402
from hgkd_mm.quickstart.data import make_scenes  # noqa: E402
from hgkd_mm.quickstart.pretraining import SCENES, pretrain_students  # noqa: E402
from hgkd_mm.quickstart.seeds import (  # noqa: E402
    over_seeds,
    print_transfer_table,
    write_seeds_summary,
)
from hgkd_mm.quickstart.transfer import TASKS, transfer  # noqa: E402
from hgkd_mm.utils.environment import need_ops  # noqa: E402
from hgkd_mm.utils.work_dir import held  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--length', type=float, default=1.0, help="factor of the tasks' iterations")
    parser.add_argument(
        '--tasks', nargs='+', choices=[task.name for task in TASKS], help='default: all'
    )
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'transfer')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    tasks = tuple(task for task in TASKS if not args.tasks or task.name in args.tasks)
    tables, title = [], f'Transfer on Scenes, seeds {args.seeds}, length {args.length:g}, in %'
    try:
        need_ops('The transfer table, whose pictures are drawn with MMDetection,')
        from hgkd_mm.quickstart.transfer_report import report  # imports mmdet

        with held(args.work_dir):
            make_scenes(SCENES, layouts=True)
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
                report(work_dir, result, scenes=SCENES, seed=seed)
                tables.append(result.scores)
        table = over_seeds(tables)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f'transfer_table: {error}')
    print_transfer_table(table, title)
    # Part of the tasks is another table, which does not take the place of the whole.
    name = '-'.join(['summary', *(args.tasks or [])])
    summary = args.work_dir / f'{name}.json'
    write_seeds_summary(
        summary, table, seeds=args.seeds, length=args.length, versions=versions(get_device())
    )
    print(f'Written to {summary}')


if __name__ == '__main__':
    main()
