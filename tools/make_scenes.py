"""Writes Scenes, the embedded data set, as ordinary folders and in COCO's and ADE20K's layouts.

    python tools/make_scenes.py --out data/scenes
    python tools/make_scenes.py --out data/scenes --folders-only    # half the time

Says so and returns if the folder already holds what is asked for; completes a half-written one.
"""

import argparse
import signal
import sys
from pathlib import Path

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hgkd_mm.scenes import SceneFolder, SceneLayouts, SceneRenderer, contact_sheet  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
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
    if args.preview:
        sheet = contact_sheet(SceneRenderer(seed=args.seed, size=args.size))
        args.preview.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(args.preview), sheet[..., ::-1])
        print(f'Contact sheet: {args.preview}')
        return
    folder = SceneFolder(
        out=args.out, seed=args.seed, size=args.size, train=args.train, val=args.val
    )
    layouts = SceneLayouts(scenes=folder)
    if folder.is_complete() and (args.folders_only or layouts.is_complete()):
        print(f'{args.out} already holds these Scenes; nothing to do.')
        return
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    parts = {'Scenes': folder} | ({} if args.folders_only else {'COCO and ADE20K': layouts})
    with Progress(*columns, TimeRemainingColumn()) as progress:
        for name, part in parts.items():
            bar = progress.add_task(name, total=part.total)
            for done in part.write(workers=args.workers):
                progress.update(bar, completed=done)
            progress.update(bar, completed=part.total)
    written = f'{args.out}: {args.train} training and {args.val} validation images'
    if args.folders_only:
        print(f'{written}.')
        return
    extra = {split: layouts.extras(split) for split in ('train', 'val')}
    print(
        f'{written}; coco/ and ade/ have {extra["train"]} and {extra["val"]} more, '
        'empty ones and crowds.'
    )


if __name__ == '__main__':
    # As Ctrl-C does, so that a terminated run takes its worker processes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'make_scenes: {error}')
    except KeyboardInterrupt:
        sys.exit('make_scenes: interrupted; the same command completes the folder.')
