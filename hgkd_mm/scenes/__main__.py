"""Writes Scenes: ``python -m hgkd_mm.scenes --out DIR``."""

import argparse
import sys
from pathlib import Path

from . import SceneFolder, make_scenes


def main() -> None:
    """Reads the command line and writes the folder."""
    parser = argparse.ArgumentParser(description='Writes Scenes, the embedded data set.')
    parser.add_argument('--out', type=Path, default=Path('data/scenes'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=128, help='side of the images in pixels')
    parser.add_argument('--train', type=int, default=6000, help='number of training images')
    parser.add_argument('--val', type=int, default=1200, help='number of validation images')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument(
        '--folders-only', action='store_true', help='without the layouts of COCO and ADE20K'
    )
    args = vars(parser.parse_args())
    layouts, workers = not args.pop('folders_only'), args.pop('workers')
    try:
        make_scenes(SceneFolder(**args), layouts=layouts, workers=workers)
    except (OSError, ValueError) as error:
        sys.exit(f'make_scenes: {error}')


if __name__ == '__main__':
    main()
