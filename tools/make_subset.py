"""Writes the annotation file of a part of ImageNet, for training with few labels.

    python tools/make_subset.py --list 1percent.txt       # the images of a list, SimCLR's say
    python tools/make_subset.py --share 0.01 --seed 0     # a random share of every class

The file goes to DATA/meta/train_1pct.txt, named after its share of all images;
configs/cls/r50_semi-1pct_in1k.py takes it from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hgkd_mm.datasets import LabelledFolder  # noqa: E402
from hgkd_mm.datasets.labelled_folder import stratified_share  # noqa: E402

# File in the folder of the split, and class index.
Labelled = tuple[str, int]


def labelled_files(data: Path) -> list[Labelled]:
    """The training images with their classes, sorted by name: of meta/train.txt or train/."""
    lines = 'meta/train.txt' if (data / 'meta/train.txt').is_file() else ''
    images = LabelledFolder(data_root=str(data), data_prefix='train', ann_file=lines)
    root = data / 'train'
    return sorted((str(Path(i['img_path']).relative_to(root)), i['gt_label']) for i in images)


def pick_listed(files: Sequence[Labelled], names: Iterable[str]) -> list[Labelled]:
    """Those of ``files`` that a list names, one file name a line, without folder, as SimCLR's.

    Raises:
        ValueError: An image of the list is not there.
    """
    wanted = {name.strip() for name in names} - {''}
    picked = [(path, label) for path, label in files if Path(path).name in wanted]
    missing = sorted(wanted - {Path(path).name for path, _ in picked})
    if missing or len(picked) != len(wanted) or not wanted:
        raise ValueError(
            f'{len(missing)} of the {len(wanted)} listed images are not there '
            f'({", ".join(missing[:3]) or "none"}), and the others are {len(picked)} files: --list '
            'takes one file name a line, each of one image in --data.'
        )
    return picked


def main() -> None:
    """Writes the file and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, default=Path('data/imagenet'), help='holds train/')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--list', type=Path, metavar='FILE', help='file names, one a line')
    which.add_argument('--share', type=float, help='fraction of every class, 0.01 for 1 %%')
    parser.add_argument('--seed', type=int, default=0, help='of the random share')
    parser.add_argument('--out', type=Path, help='default DATA/meta/train_<share>pct.txt')
    args = parser.parse_args()
    files = labelled_files(args.data)
    if args.list:
        picked = pick_listed(files, args.list.read_text().splitlines())
    else:
        chosen = stratified_share([label for _, label in files], args.share, seed=args.seed)
        picked = [files[index] for index in chosen]
    percent = f'{float(f"{100 * len(picked) / len(files):.2g}"):g}'
    out = args.out or args.data / 'meta' / f'train_{percent}pct.txt'
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(''.join(f'{path} {label}\n' for path, label in picked))
    classes = len({label for _, label in picked})
    print(f'{out}: {len(picked)} of {len(files)} images ({percent} %), {classes} classes.')


if __name__ == '__main__':
    try:
        main()
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f'make_subset: {error}')
