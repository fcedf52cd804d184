"""Part of a labelled folder, as the annotation file that mmpretrain's datasets take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

# File below the split's folder, and class index.
Labelled = tuple[str, int]

_IMAGES = {'.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif'}


def labelled_files(data: Path) -> list[Labelled]:
    """The training images with their class, in order of their names.

    From ``DATA/meta/train.txt`` if it is there, else from the folders of classes in
    ``DATA/train``, numbered by alphabet: as mmpretrain's ``ImageNet`` does.

    Args:
        data: The data set's folder.

    Raises:
        FileNotFoundError: There is neither, or no image.
    """
    lines = data / 'meta' / 'train.txt'
    if lines.is_file():
        pairs = (line.rsplit(' ', 1) for line in lines.read_text().splitlines() if line.strip())
        return sorted((name, int(label)) for name, label in pairs)
    root = data / 'train'
    if not root.is_dir():
        raise FileNotFoundError(
            f'There is neither {lines} nor a folder {root}: --data is the folder that holds '
            'train/, as data/imagenet does.'
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    found = [
        (str(path.relative_to(root)), label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.rglob('*'))
        if path.suffix.lower() in _IMAGES
    ]
    if not found:
        raise FileNotFoundError(f'{root} has no images in folders of classes.')
    return found


def pick_listed(files: Sequence[Labelled], names: Iterable[str]) -> list[Labelled]:
    """The images of a list, such as SimCLR's: one file name a line, without its folder.

    Args:
        files: What `labelled_files` found.
        names: File names; empty lines are skipped.

    Raises:
        ValueError: An image of the list is not there, or stands for several.
    """
    by_name: dict[str, list[Labelled]] = defaultdict(list)
    for path, label in files:
        by_name[Path(path).name].append((path, label))
    wanted = {name.strip() for name in names} - {''}
    missing = sorted(name for name in wanted if len(by_name.get(name, ())) != 1)
    if missing or not wanted:
        raise ValueError(
            f'{len(missing)} of the {len(wanted)} listed images are not there, or more than once '
            f'({", ".join(missing[:3])}): --list takes one file name a line, of images in --data.'
        )
    return sorted(by_name[name][0] for name in wanted)


def pick_share(files: Sequence[Labelled], share: float, *, seed: int = 0) -> list[Labelled]:
    """A random share of every class, at least one image of each.

    Args:
        files: What `labelled_files` found.
        share: Fraction of each class, more than 0 and at most 1.
        seed: Of the choice.

    Raises:
        ValueError: The share is out of range.
    """
    ordered = sorted(files)
    chosen = stratified_share([label for _, label in ordered], share, seed=seed)
    return [ordered[i] for i in chosen]


def stratified_share(labels: Sequence[int], share: float, *, seed: int = 0) -> list[int]:
    """Indices of a random share of every class, at least one of each, in order.

    By scikit-learn's ``train_test_split``; it leaves out classes of which the share is less than
    an image, and those give one here.

    Args:
        labels: Class of each image.
        share: Fraction of each class, more than 0 and at most 1. Below 1 at least as many images
            are left out as there are classes of which the share is an image or more.
        seed: Of the choice.

    Raises:
        ValueError: The share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f'--share is a fraction, more than 0 and at most 1, and not {share}.')
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        of_class[label].append(index)
    if share == 1:
        return list(range(len(labels)))
    generator = np.random.default_rng(seed)
    rare = {label for label, indices in of_class.items() if share * len(indices) < 1}
    picked = [int(generator.choice(of_class[label])) for label in sorted(rare)]
    common = [index for index, label in enumerate(labels) if label not in rare]
    if common:
        # sklearn wants both parts to have room for every class
        count = min(int(share * len(common)), len(common) - (len(of_class) - len(rare)))
        chosen, _ = train_test_split(
            common, train_size=count, random_state=seed, stratify=[labels[i] for i in common]
        )
        picked += chosen
    return sorted(picked)


def annotation_lines(picked: Iterable[Labelled]) -> str:
    """The text of mmpretrain's ``ann_file``: a path and a class index a line."""
    return ''.join(f'{path} {label}\n' for path, label in picked)
