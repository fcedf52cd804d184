"""Images of a folder, and the conversion between pictures and normalized network inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgkd_mm.datasets.unlabelled_folder import EXTENSIONS, UnlabelledFolder

Size = tuple[int, int]
_LOADERS = ('val_dataloader', 'test_dataloader', 'train_dataloader')
_CONVERSIONS = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """Normalization of a network's images."""

    mean: tuple[float, ...]  # per channel, 0 to 255, in the network's order of channels
    std: tuple[float, ...]
    rgb: bool  # whether that order is RGB; BGR otherwise

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> InputFormat:
        """That of a config of mmpretrain, mmdet or mmseg, whose loaders give BGR.

        Raises:
            ValueError: mean or std is not of three channels.
        """
        settings = config['model'].get('data_preprocessor') or config.get('data_preprocessor') or {}
        mean = tuple(map(float, settings.get('mean') or (0, 0, 0)))
        std = tuple(map(float, settings.get('std') or (1, 1, 1)))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(
                f'Pictures need a network of three input channels, but data_preprocessor has '
                f'mean={mean} and std={std}.'
            )
        return cls(mean=mean, std=std, rgb=any(settings.get(key) for key in _CONVERSIONS))

    def normalize(self, pictures: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) RGB to (B, 3, H, W) float32 input of the network."""
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((pixels if self.rgb else pixels.flip(1)) - mean) / std

    def restore(self, images: Tensor) -> NDArray[np.uint8]:
        """(B, 3, H, W) input of the network to (B, H, W, 3) RGB."""
        pictures = denormalize(images, self.mean, self.std)
        return pictures if self.rgb else np.ascontiguousarray(pictures[..., ::-1])


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """(B, 3, H, W) normalized to (B, H, W, 3) uint8, with the same order of channels.

    Args:
        images: normalized by a data preprocessor.
        mean: per channel, 0 to 255, as in the data preprocessor's config.
        std: the same.
    """
    scale, shift = (torch.as_tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (std, mean))
    pixels = images.detach().cpu().float() * scale + shift
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def hide_cells(images: NDArray[np.uint8], visible: Tensor, *, fill: int = 235) -> NDArray[np.uint8]:
    """A copy of (B, H, W, 3) images with cells that are not ``visible``, (B, gh, gw), covered."""
    flags = visible.detach().cpu().bool().numpy()
    cell = images.shape[1] // flags.shape[1], images.shape[2] // flags.shape[2]
    pixels = flags.repeat(cell[0], axis=1).repeat(cell[1], axis=2)
    return np.where(pixels[..., None], images, np.uint8(fill))


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images of a folder, in random order."""

    folder: Path
    pictures: NDArray[np.uint8]  # (B, H, W, 3) RGB
    paths: tuple[Path, ...]
    total: int  # number of images in the folder

    def description(self) -> str:
        """One sentence: how many images, of which folder, at which size."""
        height, width = self.pictures.shape[1:3]
        return (
            f'{len(self.paths)} of {self.total} images of {self.folder}, short side resized to '
            f'{max(height, width)} px, then a center crop of {height} x {width}.'
        )

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
        folder: the folder.
        count: number of images; fewer if the folder has fewer.
        size: (H, W) of the crop.
        seed: of the choice and its order.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no image.
        RuntimeError: all of its images are broken.
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f'{count} images make no picture: give --num of 1 or more.')
    folder = Path(folder).expanduser()
    dataset = _open(folder, size)
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
    return FolderImages(
        folder=folder,
        pictures=np.stack(list(pictures.values())),
        paths=tuple(pictures),
        total=len(dataset),
    )


def _open(folder: Path, size: Size) -> UnlabelledFolder:
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder} (looked from {Path.cwd()}).')
    resize = dict(scale=max(size), edge='short', backend='pillow', interpolation='bicubic')
    pipeline = [
        dict(type='LoadColorImage', channel_order='rgb'),
        dict(type='ResizeEdge', **resize),
        dict(type='CenterCrop', crop_size=(size[1], size[0])),
        dict(type='PackInputs'),
    ]
    try:
        return UnlabelledFolder(data_root=str(folder), pipeline=pipeline, max_broken=1.0)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'The folder {folder} holds no image ({", ".join(EXTENSIONS)}): give another folder.'
        ) from error


def training_size(config: Mapping[str, Any]) -> Size:
    """(H, W) of the first crop in a config's training pipeline, else its test or validation one.

    Raises:
        ValueError: none of them crops to a size.
    """
    for loader in reversed(_LOADERS):
        for step in _dataset(config, loader).get('pipeline') or []:
            size = step.get('scale', step.get('crop_size', step.get('size')))
            if 'Crop' in str(step.get('type')) and size:
                return (size, size) if isinstance(size, int) else (size[0], size[1])
    raise ValueError(
        'No pipeline of the config crops images to a size, so the size that the network was '
        'trained with is not known: give it with --size, in pixels.'
    )


def data_folder(config: Mapping[str, Any]) -> Path:
    """The folder of a config's validation, test or training images, the first that exists.

    Raises:
        FileNotFoundError: none exists.
    """
    tried = []
    for loader in _LOADERS:
        dataset = _dataset(config, loader)
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
        f'No data set of the config has a folder that exists ({", ".join(tried) or "none named"}'
        f'; looked from {Path.cwd()}): give --images FOLDER.'
    )


def _dataset(config: Mapping[str, Any], loader: str) -> Mapping[str, Any]:
    """Settings of a loader's dataset, without wrappers such as RepeatDataset."""
    dataset = (config.get(loader) or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset
