"""Images of a folder, and the conversion between pictures and normalized network inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgkd_mm.datasets.unlabelled_folder import UnlabelledFolder

Size = tuple[int, int]
_LOADERS = ('train_dataloader', 'test_dataloader', 'val_dataloader')
_CONVERSIONS = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """Normalization of a network's images."""

    mean: tuple[float, ...]  # per channel, 0 to 255, in the network's order of channels
    std: tuple[float, ...]
    rgb: bool  # whether that order is RGB; BGR otherwise

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> InputFormat:
        """That of a config of mmpretrain, mmdet or mmseg, whose loaders give BGR."""
        settings = config['model'].get('data_preprocessor') or config.get('data_preprocessor') or {}
        return cls(
            mean=tuple(settings.get('mean') or (0, 0, 0)),
            std=tuple(settings.get('std') or (1, 1, 1)),
            rgb=any(settings.get(key) for key in _CONVERSIONS),
        )

    def normalize(self, pictures: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) RGB to (B, 3, H, W) float32 input of the network."""
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        mean, std = self._statistics()
        return ((pixels if self.rgb else pixels.flip(1)) - mean) / std

    def restore(self, images: Tensor) -> NDArray[np.uint8]:
        """(B, 3, H, W) input of the network to (B, H, W, 3) RGB."""
        mean, std = self._statistics()
        pixels = (images.detach().cpu().float() * std + mean).round().clamp(0, 255).byte()
        return (pixels if self.rgb else pixels.flip(1)).permute(0, 2, 3, 1).numpy()

    def _statistics(self) -> list[Tensor]:
        return [torch.tensor(v).float().view(1, 3, 1, 1) for v in (self.mean, self.std)]


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images of a folder, in random order."""

    folder: Path
    pictures: NDArray[np.uint8]  # (B, H, W, 3) RGB
    paths: tuple[Path, ...]

    def batches(self, input_format: InputFormat, *, size: int, device: str) -> Iterator[Tensor]:
        """(b, 3, H, W) normalized images on a device, ``size`` or fewer at a time."""
        for start in range(0, len(self.pictures), size):
            yield input_format.normalize(self.pictures[start : start + size]).to(device)

    def classes(self) -> tuple[list[str], Tensor | None]:
        """Names of the class subfolders and (B,) class indices.

        No names and None if there are fewer than two classes or too few images to compare them.
        """
        parts = [path.relative_to(self.folder).parts for path in self.paths]
        names = [inside[0] for inside in parts if len(inside) > 1]
        classes = sorted(set(names))
        if len(names) < len(parts) or len(classes) < 2 or len(names) < 2 * len(classes):
            return [], None
        return classes, torch.tensor([classes.index(name) for name in names])


def load_folder_images(
    folder: str | Path, *, count: int, size: Size, seed: int = 0
) -> FolderImages:
    """Loads images chosen at random: short side resized to the larger of ``size``, center cropped.

    Reads nested folders of any common format, as ``UnlabelledFolder``; broken files are skipped
    with a warning.

    Args:
        folder: with ``count`` images or fewer.
        count: number of images.
        size: (H, W) of the crop.
        seed: of the choice and its order.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no image.
        RuntimeError: all of its images are broken.
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f'--num is a number of images, 1 or more, got {count}.')
    folder = Path(folder).expanduser()
    resize = dict(scale=max(size), edge='short', backend='pillow', interpolation='bicubic')
    pipeline = [
        dict(type='LoadColorImage', channel_order='rgb'),
        dict(type='ResizeEdge', **resize),
        dict(type='CenterCrop', crop_size=(size[1], size[0])),
        dict(type='PackInputs'),
    ]
    dataset = UnlabelledFolder(data_root=str(folder), pipeline=pipeline, max_broken=1.0)
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    pictures: dict[Path, NDArray[np.uint8]] = {}
    for index in order:
        # A broken image is replaced by another file, which may be among the chosen ones.
        item = dataset[index]
        picture = item['inputs'].permute(1, 2, 0).numpy()
        pictures.setdefault(Path(item['data_samples'].img_path), picture)
        if len(pictures) == count:
            break
    stacked = np.stack(list(pictures.values()))
    return FolderImages(folder=folder, pictures=stacked, paths=tuple(pictures))


def training_size(config: Mapping[str, Any]) -> Size:
    """(H, W) of the first crop in a config's training pipeline, else its test or validation one.

    Raises:
        ValueError: none of them crops to a size.
    """
    for loader in _LOADERS:
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
