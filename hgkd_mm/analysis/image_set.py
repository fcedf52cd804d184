"""The images that figures are taken over, and their classes if folders tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from hgkd_mm.visualization.folder_images import (
    FolderImages,
    Size,
    load_folder_images,
    training_size,
)
from hgkd_mm.visualization.input_format import InputFormat


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of a folder in random order.

    Attributes:
        folder: the folder.
        images: its images.
        size: (H, W) pixels of each.
        seed: of the choice.
        classes: names of the subfolders; empty if ``labels`` is None.
        labels: (N,) class indices, or None if the folder does not tell them.
    """

    folder: Path
    images: FolderImages
    size: Size
    seed: int
    classes: list[str] = field(default_factory=list)
    labels: Tensor | None = None

    @property
    def chance(self) -> dict[str, float] | None:
        """What features that know nothing of the classes get: see `class_separability`."""
        if self.labels is None:
            return None
        count = len(self.classes)
        separability = (count - 1) / (len(self.labels) - count)
        return {'class_separability': separability, 'knn_top1': 100 / count}

    def batches(self, input_format: InputFormat, *, size: int, device: str) -> Iterator[Tensor]:
        """(b, 3, H, W) normalised images on a device, ``size`` or fewer at a time."""
        for start in range(0, len(self.images.pictures), size):
            yield input_format.normalize(self.images.pictures[start : start + size]).to(device)

    def described(self) -> dict[str, Any]:
        """For JSON."""
        height, width = self.size
        return {
            'folder': str(self.folder),
            'count': len(self.images.paths),
            'of': self.images.total,
            'height': height,
            'width': width,
            'seed': self.seed,
            'classes': self.classes,
        }

    def notes(self) -> list[str]:
        """Sentences for people."""
        height, width = self.size
        chosen = (
            f'{len(self.images.paths)} of {self.images.total} images of {self.folder}, short side '
            f'resized to {max(self.size)} px, then a centre crop of {height} x {width}.'
        )
        if self.chance is None:
            return [
                chosen,
                'Without class separability and kNN: the images are not in two or more class '
                'subfolders with two or more images each.',
            ]
        return [
            chosen,
            f'{len(self.classes)} classes: features that know nothing of them have a separability '
            f'of about {self.chance["class_separability"]:.3f} and a kNN of '
            f'{self.chance["knn_top1"]:.1f} %.',
        ]


def load_image_set(
    config: Config, folder: str | Path | None, *, count: int, size: Size | None, seed: int
) -> ImageSet:
    """Images of a folder; those in subfolders have their names as classes.

    Args:
        config: names the folder and the size that are not given.
        folder: images, nested at will.
        count: how many; fewer if the folder has fewer.
        size: (H, W) that they are cropped to.
        seed: of the choice and its order.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no image.
        RuntimeError: all of its images are broken.
        ValueError: the config does not crop to a size.
    """
    folder = folder_of(config) if folder is None else Path(folder).expanduser()
    size = size or training_size(config)
    images = load_folder_images(folder, count=count, size=size, seed=seed)
    parts = [path.relative_to(folder).parts for path in images.paths]
    names = [inside[0] for inside in parts if len(inside) > 1]
    classes = sorted(set(names))
    told = {'folder': folder, 'images': images, 'size': size, 'seed': seed}
    # Fewer say nothing about how far classes are apart.
    if len(names) < len(parts) or len(classes) < 2 or len(names) < 2 * len(classes):
        return ImageSet(**told)
    labels = torch.tensor([classes.index(name) for name in names])
    return ImageSet(**told, classes=classes, labels=labels)


def folder_of(config: Mapping[str, Any]) -> Path:
    """The folder that a data set of the config reads, the validation one first.

    Raises:
        FileNotFoundError: none is there.
    """
    tried = []
    for loader in ('val_dataloader', 'test_dataloader', 'train_dataloader'):
        dataset = (config.get(loader) or {}).get('dataset') or {}
        while 'dataset' in dataset:  # wrappers such as RepeatDataset
            dataset = dataset['dataset']
        prefix = dataset.get('data_prefix') or ''
        if isinstance(prefix, Mapping):
            prefix = next(iter(prefix.values()), '')
        if not dataset.get('data_root'):
            continue
        folder = Path(dataset['data_root'], prefix).expanduser()
        if folder.is_dir():
            return folder
        tried.append(str(folder))
    raise FileNotFoundError(
        f'No data set of the config has a folder that is there ({", ".join(tried) or "none named"}'
        f'; looked from {Path.cwd()}): give --images FOLDER.'
    )
