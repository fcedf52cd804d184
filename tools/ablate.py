"""What each part of a pre-training is worth: variants at equal steps and seeds, as one table.

python tools/ablate.py configs/_base_/ablations/r18_scenes.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.device import get_device  # noqa: E402

from hgkd_mm.benchmark import versions  # noqa: E402
from hgkd_mm.quickstart.ablation import ablate, read_variants  # noqa: E402
from hgkd_mm.quickstart.data import make_scenes  # noqa: E402
from hgkd_mm.quickstart.pretraining import SCENES  # noqa: E402
from hgkd_mm.quickstart.seeds import (  # noqa: E402
    over_seeds,
    print_transfer_table,
    write_seeds_summary,
)
from hgkd_mm.utils.work_dir import held  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('variants', type=Path, help='config file with a list of variants')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='some of the variants')
    parser.add_argument('--length', type=float, default=1.0, help="factor of fine-tuning's steps")
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/ablation/<name>')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    work_dir = (args.work_dir or ROOT / 'work_dirs' / 'ablation' / args.variants.stem).resolve()
    try:
        variants = read_variants(args.variants)
        unknown = set(args.only or ()) - {variant.name for variant in variants}
        if unknown:
            raise ValueError(f'--only names {sorted(unknown)}, which {args.variants} has not.')
        make_scenes(SCENES)
        chosen = [v for v in variants if not args.only or v.name in args.only]
        with held(work_dir):
            tables = [
                ablate(chosen, work_dir=work_dir / f'seed-{seed}', seed=seed, length=args.length)
                for seed in args.seeds
            ]
        table = over_seeds(tables)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f'ablate: {error}')
    print_transfer_table(table, f'{args.variants.stem}, seeds {args.seeds}, top-1 in %')
    summary = work_dir / 'summary.json'
    write_seeds_summary(
        summary, table, seeds=args.seeds, length=args.length, versions=versions(get_device())
    )
    print(f'Written to {summary}')


if __name__ == '__main__':
    main()
