"""Files that a config names: whether they are there, and where they come from."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ENOUGH = 1000
_MOST_LOOKED_AT = 100_000
# What a folder is recognised by, with the part of it to name in the command as the group.
_SOURCES = (
    (
        r'(.*?scenes[^/]*)',
        'write the embedded data set with `python tools/make_scenes.py --out {root}`',
    ),
    (
        r'(.*imagenet.*)',
        'link ImageNet-1K with `ln -s /path/to/imagenet {root}` (train/ and val/, one folder a '
        'class)',
    ),
    (
        r'((?:.*/)?coco.*)',
        'link COCO 2017 with `ln -s /path/to/coco {root}` (annotations/, train2017/, val2017/)',
    ),
    (
        r'((?:.*/)?ade.*)',
        'link ADE20K with `ln -s /path/to/ADEChallengeData2016 {root}` (images/ and annotations/, '
        'each with training/ and validation/)',
    ),
)


def data_cure(root: str, key: str) -> str:
    """What to do about data that is not there.

    Args:
        root: The folder that the data set is expected in.
        key: Of the data set in the config.

    Returns:
        The end of a sentence.
    """
    place = root.rstrip('/')
    elsewhere = f'set {key}.data_root to where it is (--cfg-options {key}.data_root=DIR)'
    for pattern, source in _SOURCES:
        if found := re.match(pattern, place, re.IGNORECASE):
            return f'{source.format(root=found.group(1))}, or {elsewhere}'
    return elsewhere


def files_below(folder: Path, suffixes: Iterable[str] = ()) -> Iterator[str]:
    """Files in a folder and its folders, by their path in it; hidden ones are left out.

    Args:
        folder: Links to folders are followed.
        suffixes: Of the files wanted, in lower case; all files if there are none.
    """
    endings = tuple(suffixes)
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in files:
            if not name.startswith('.') and (not endings or name.lower().endswith(endings)):
                yield os.path.relpath(os.path.join(base, name), folder)


def count(folder: Path, suffixes: Iterable[str] = ()) -> int:
    """Number of files in a folder and its folders, `ENOUGH` if there are more.

    Gives up on finding more after 100 000 files of other kinds.
    """
    endings = tuple(suffixes)
    seen = itertools.islice(files_below(folder), _MOST_LOOKED_AT)
    wanted = (name for name in seen if not endings or name.lower().endswith(endings))
    return sum(1 for _ in itertools.islice(wanted, ENOUGH))


def counted(number: int) -> str:
    """A number that `count` gave, in words."""
    return f'{ENOUGH} files or more' if number >= ENOUGH else f'{number} files'
