"""A few images of a folder, at the size that a network was trained with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgkd_mm.datasets.unlabelled_folder import EXTENSIONS, UnlabelledFolder

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images of a folder.

    Attributes:
        pictures: (B, H, W, 3) uint8 RGB.
        paths: their files.
        total: how many images the folder holds.
    """

    pictures: NDArray[np.uint8]
    paths: tuple[Path, ...]
    total: int


def training_size(config: Mapping[str, Any]) -> Size:
    """Height and width that a config crops its images to.

    The first transform whose name has 'Crop' in it counts, of the training pipeline, else of
    the test or the validation one.

    Raises:
        ValueError: none of them crops to a size.
    """
    for loader in ('train_dataloader', 'test_dataloader', 'val_dataloader'):
        dataset = (config.get(loader) or {}).get('dataset') or {}
        while 'dataset' in dataset:  # wrappers such as RepeatDataset
            dataset = dataset['dataset']
        for step in dataset.get('pipeline') or []:
            size = step.get('scale', step.get('crop_size', step.get('size')))
            if 'Crop' in str(step.get('type')) and size:
                return (size, size) if isinstance(size, int) else (size[0], size[1])
    raise ValueError(
        'No pipeline of the config crops images to a size, so the size that the network was '
        'trained with is not known: give it with --size, in pixels.'
    )


def load_folder_images(
    folder: str | Path, *, count: int, size: Size, seed: int = 0
) -> FolderImages:
    """Images of a folder, chosen at random: short side resized, centre cropped.

    Read as ``UnlabelledFolder`` does: nested folders, any common format; a broken file is
    warned of and passed over.

    Args:
        folder: the folder.
        count: how many; fewer if the folder has fewer.
        size: (H, W) of the crop. The short side is resized to the larger of the two.
        seed: of the choice.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no image.
        RuntimeError: all of its images are broken.
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f'{count} images make no picture: give --num of 1 or more.')
    dataset = _open(Path(folder).expanduser(), size)
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    found: dict[Path, NDArray[np.uint8]] = {}
    for index in order:
        # A broken image gives that of another file, which may be among the chosen ones.
        item = dataset[index]
        picture = item['inputs'].permute(1, 2, 0).numpy()
        found.setdefault(Path(item['data_samples'].img_path), picture)
        if len(found) == count:
            break
    return FolderImages(
        pictures=np.stack(list(found.values())), paths=tuple(found), total=len(dataset)
    )


def _open(folder: Path, size: Size) -> UnlabelledFolder:
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder} (looked from {Path.cwd()}).')
    height, width = size
    pipeline = [
        dict(type='LoadColorImage', channel_order='rgb'),
        dict(
            type='ResizeEdge',
            scale=max(size),
            edge='short',
            backend='pillow',
            interpolation='bicubic',
        ),
        dict(type='CenterCrop', crop_size=(width, height)),
        dict(type='PackInputs'),
    ]
    try:
        return UnlabelledFolder(data_root=str(folder), pipeline=pipeline, max_broken=1.0)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'The folder {folder} holds no image ({", ".join(EXTENSIONS)}): give another folder.'
        ) from error
