"""Trains the quickstart's small MAE teacher on Scenes, from nothing.

    python tools/train_teacher.py                      # writes work_dirs/teacher/mae_scenes.safetensors

Makes 20000 images first (seed 0; the quickstart's 6000 are among them).
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgkd_mm.quickstart.teacher import train_teacher  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, help='folder of images instead of Scenes')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'teacher')
    parser.add_argument('--images', type=int, default=20000, help='Scenes to make')
    parser.add_argument('--epochs', type=int, help='instead of the config, for a quick look')
    args = parser.parse_args()
    options: dict[str, object] = {}
    if args.data is None:
        args.data = ROOT / 'data' / 'scenes-teacher'
        command = [sys.executable, str(ROOT / 'tools' / 'make_scenes.py'), '--out', str(args.data)]
        subprocess.run([*command, '--train', str(args.images)], check=True)
        options['train_dataloader.dataset.data_root'] = str(args.data)
    else:
        options.update(folder_options(args.data))
    if args.epochs:
        options['train_cfg.max_epochs'] = args.epochs
    try:
        print(f'Teacher: {train_teacher(args.work_dir, options)}')
    except RuntimeError as error:
        sys.exit(f'train_teacher: {error}')


if __name__ == '__main__':
    from hgkd_mm.quickstart.data import folder_options

    main()
