"""Writes Scenes: ``python -m hgkd_mm.scenes --out DIR``."""

import argparse
import sys
from pathlib import Path

import cv2

from . import SceneFolder, SceneRenderer, contact_sheet, make_scenes


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
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
    parser.add_argument('--preview', type=Path, metavar='PNG', help='only write a contact sheet')
    return parser.parse_args()


def main() -> None:
    """Writes the folder or the contact sheet."""
    args = parse_args()
    try:
        if args.preview:
            sheet = contact_sheet(SceneRenderer(seed=args.seed, size=args.size))
            args.preview.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(args.preview), sheet[..., ::-1])
            print(f'Contact sheet: {args.preview}')
            return
        folder = SceneFolder(
            out=args.out, seed=args.seed, size=args.size, train=args.train, val=args.val
        )
        make_scenes(folder, layouts=not args.folders_only, workers=args.workers)
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'make_scenes: {error}')
    except KeyboardInterrupt:
        sys.exit('make_scenes: interrupted; the same command completes the folder.')


if __name__ == '__main__':
    main()
