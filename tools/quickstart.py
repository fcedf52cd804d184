"""From nothing to a distilled ResNet-18 on this machine; see tools/quickstart.sh.

python tools/quickstart.py                    # Scenes, the carried teacher, one epoch
python tools/quickstart.py --epochs 4         # as long as in the README's second table
python tools/quickstart.py --transfer         # and then classification, Mask R-CNN, UperNet
python tools/quickstart.py --data DIR         # pre-train on your own images
python tools/quickstart.py --train-teacher    # make the teacher anew as well
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgkd_mm.quickstart.data import make_scenes  # noqa: E402
from hgkd_mm.quickstart.pretraining import SCENES  # noqa: E402
from hgkd_mm.quickstart.run import quickstart  # noqa: E402
from hgkd_mm.utils.environment import need_ops  # noqa: E402
from hgkd_mm.utils.launch import add_config_flag  # noqa: E402
from hgkd_mm.utils.work_dir import held  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, help='folder of unlabelled images')
    parser.add_argument('--train-teacher', action='store_true', help='train the MAE teacher too')
    parser.add_argument(
        '--transfer', action='store_true', help='go on with classification, detection, segmentation'
    )
    parser.add_argument('--epochs', type=int, help='of both students (1; with --transfer 4)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'quickstart')
    add_config_flag(parser, example='train_cfg.max_epochs=8, of both students')
    return parser.parse_args()


def run(args: argparse.Namespace, work_dir: Path) -> None:
    result = quickstart(
        work_dir=work_dir,
        data=args.data and args.data.resolve(),
        seed=args.seed,
        new_teacher=args.train_teacher,
        epochs=args.epochs or (4 if args.transfer else 1),
        options=args.cfg_options,
        # set by tools/quickstart.sh, which ran the set-up just before
        setup=Path(times) if (times := os.environ.get('HGKD_SETUP_TIMES')) else None,
    )
    print(f'Written to {work_dir}: summary.json, quickstart.png, hgkd/last.pth')
    if args.transfer:
        # mmdet and mmseg take seconds to import, and only this needs them
        from hgkd_mm.quickstart.transfer import transfer
        from hgkd_mm.quickstart.transfer_report import report

        make_scenes(SCENES, layouts=True)
        folder = work_dir / 'transfer'
        table = transfer(work_dir=folder, scenes=SCENES, students=result.students, seed=args.seed)
        report(folder, table, scenes=SCENES, seed=args.seed)
        print(f'Written to {folder}: summary.json, detection.png, segmentation.png')


def main() -> None:
    args = parse_args()
    if args.data is not None and not args.data.is_dir():
        sys.exit(f'quickstart: --data {args.data} is not a folder.')
    if args.epochs is not None and args.epochs < 1:
        sys.exit(f'quickstart: --epochs takes a number from 1, not {args.epochs}.')
    work_dir = args.work_dir.resolve()
    try:
        if args.transfer:
            need_ops('Mask R-CNN, which --transfer trains,')
        with held(work_dir):
            run(args, work_dir)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f'quickstart: {error}')


if __name__ == '__main__':
    main()
