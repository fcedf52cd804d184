"""From nothing to a distilled ResNet-18 on this machine; see tools/quickstart.sh.

python tools/quickstart.py                    # Scenes, the carried teacher
python tools/quickstart.py --data DIR         # pre-train on your own images
python tools/quickstart.py --train-teacher    # make the teacher anew as well
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.config import DictAction  # noqa: E402

from hgkd_mm.quickstart.run import quickstart  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, help='folder of unlabelled images')
    parser.add_argument('--train-teacher', action='store_true', help='train the MAE teacher too')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'quickstart')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='for both students'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.data is not None and not args.data.is_dir():
        sys.exit(f'quickstart: --data {args.data} is not a folder.')
    try:
        quickstart(
            work_dir=args.work_dir.resolve(),
            data=args.data and args.data.resolve(),
            seed=args.seed,
            new_teacher=args.train_teacher,
            options=args.cfg_options,
        )
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f'quickstart: {error}')
    print(f'Written to {args.work_dir}: summary.json, quickstart.png, hgkd/epoch_*.pth')


if __name__ == '__main__':
    main()
