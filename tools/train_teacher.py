"""Trains a small teacher: the quickstart's MAE, from nothing; from it, a ViT by labels or MoCo v3.

python tools/train_teacher.py                     # work_dirs/teacher-mae/mae_scenes.safetensors
python tools/train_teacher.py --kind supervised   # by Scenes' labels; work_dirs/teacher-supervised
python tools/train_teacher.py --kind contrastive  # MoCo v3; work_dirs/teacher-contrastive
python tools/train_teacher.py --data DIR --work-dir work_dirs/my_teacher
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgkd_mm.quickstart.teacher import TEACHERS, train_teacher  # noqa: E402


def main() -> None:
    """Trains and says where the weights are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kind', choices=sorted(TEACHERS), default='mae')
    parser.add_argument(
        '--data', type=Path, help='folder of images; of Scenes for --kind supervised'
    )
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/teacher-<kind>')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.data is not None and not args.data.is_dir():
        sys.exit(f'train_teacher: --data {args.data} is not a folder.')
    work_dir = args.work_dir or ROOT / 'work_dirs' / f'teacher-{args.kind}'
    try:
        weights = train_teacher(
            work_dir.resolve(),
            kind=args.kind,
            data=args.data and args.data.resolve(),
            seed=args.seed,
        )
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f'train_teacher: {error}')
    print(f'Teacher: {weights}')


if __name__ == '__main__':
    main()
