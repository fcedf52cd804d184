"""Writes the annotation file of a part of ImageNet, for training with few labels.

    python tools/make_subset.py --list 1percent.txt       # the images of a list, SimCLR's say
    python tools/make_subset.py --share 0.01 --seed 0     # a random share of every class

The file goes to DATA/meta/train_1pct.txt, named after its share of all images;
configs/cls/r50_semi-1pct_in1k.py takes it from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hgkd_mm.utils.subset import (  # noqa: E402
    annotation_lines,
    labelled_files,
    pick_listed,
    pick_share,
)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, default=Path('data/imagenet'), help='holds train/')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--list', type=Path, metavar='FILE', help='file names, one a line')
    which.add_argument('--share', type=float, help='fraction of every class, 0.01 for 1 %%')
    parser.add_argument('--seed', type=int, default=0, help='of the random share')
    parser.add_argument('--out', type=Path, help='default DATA/meta/train_<share>pct.txt')
    return parser.parse_args()


def main() -> None:
    """Writes the file and says what is in it."""
    args = parse_args()
    files = labelled_files(args.data)
    if args.list:
        picked = pick_listed(files, args.list.read_text().splitlines())
    else:
        picked = pick_share(files, args.share, seed=args.seed)
    percent = f'{float(f"{100 * len(picked) / len(files):.2g}"):g}'
    out = args.out or args.data / 'meta' / f'train_{percent}pct.txt'
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(annotation_lines(picked))
    classes = len({label for _, label in picked})
    print(f'{out}: {len(picked)} of {len(files)} images ({percent} %), {classes} classes.')


if __name__ == '__main__':
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'make_subset: {error}')
