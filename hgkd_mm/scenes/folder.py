"""Scenes as ordinary folders: JPEG by class, png truth, one JSON line an image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

from .recipes import CLASSES
from .renderer import render_scene

# Raised whenever the same request would give other bytes.
VERSION = 2
JPEG_QUALITY = 92

Item, Result = TypeVar('Item'), TypeVar('Result')


@dataclass(frozen=True, kw_only=True)
class SceneFolder:
    """Scenes below a folder.

    ``OUT/{train,val}/<class>/000123.jpg`` are the images,
    ``OUT/annotations/{semantic,instance}/{train,val}/<class>/000123.png`` their maps (`Scene`),
    ``OUT/{train,val}.jsonl`` their labels and boxes; ``OUT/meta.json``, written last, is what was
    asked for. The maps lie as the images do, which is how mmseg's data sets look for them.

    Args:
        out: The folder.
        seed: Seed of the data set.
        size: Side of the images in pixels.
        train: Number of training images.
        val: Number of validation images.

    Raises:
        ValueError: One of them is out of range.
    """

    out: Path
    seed: int = 0
    size: int = 128
    train: int = 6000
    val: int = 1200

    def __post_init__(self) -> None:
        if self.size < 32 or min(self.seed, self.train, self.val) < 0:
            raise ValueError(f'Scenes need size >= 32 and seed, train, val >= 0, got {self}.')

    @property
    def request(self) -> dict:
        """What makes the bytes."""
        return {
            'name': 'Scenes',
            'version': VERSION,
            'classes': list(CLASSES),
            'seed': self.seed,
            'size': self.size,
            'counts': {'train': self.train, 'val': self.val},
        }

    def is_complete(self) -> bool:
        """Whether the folder already holds exactly what is asked for.

        Raises:
            FileExistsError: It holds other Scenes, finished or not.
        """
        for path in (self._finished, self._unfinished):
            there = json.loads(path.read_text()) if path.is_file() else self.request
            if keys := [key for key, value in self.request.items() if there.get(key) != value]:
                raise FileExistsError(
                    f'{self.out} holds other Scenes: '
                    + ', '.join(f'{key} {there.get(key)}, not {self.request[key]}' for key in keys)
                    + '. Choose another --out or delete that folder.'
                )
        return self._finished.is_file()

    def write(self, *, workers: int = 2) -> Iterator[None]:
        """Renders the images, from the first again if a former call was interrupted.

        Args:
            workers: Processes to render with; 1 renders in this one.

        Yields:
            After each image; never if all are there.

        Raises:
            FileExistsError: The folder holds other Scenes.
        """
        if self.is_complete():
            return
        write_whole(self._unfinished, json.dumps(self.request, indent=2).encode())
        lines: dict[str, list[str]] = {'train': [], 'val': []}
        images = [
            (split, index)
            for split, count in self.request['counts'].items()
            for index in range(count)
        ]
        for split, line in in_processes(self._write_image, images, workers):
            lines[split].append(line)
            yield
        for split, of_split in lines.items():
            write_whole(self.out / f'{split}.jsonl', ''.join(of_split).encode())
        os.replace(self._unfinished, self._finished)

    @property
    def _finished(self) -> Path:
        return self.out / 'meta.json'

    @property
    def _unfinished(self) -> Path:
        return self.out / 'unfinished.json'

    def _write_image(self, image: tuple[str, int]) -> tuple[str, str]:
        """Writes an image and its maps; returns its split and its line."""
        split, index = image
        cv2.setNumThreads(1)
        scene = render_scene(split, index, seed=self.seed, size=self.size)
        name = f'{split}/{CLASSES[scene.label]}/{index:06d}'
        write_image(self.out / f'{name}.jpg', scene.image)
        for kind, truth in (('semantic', scene.semantic_map), ('instance', scene.instance_map)):
            write_map(self.out / 'annotations' / kind / f'{name}.png', truth)
        record = {
            'image': f'{name}.jpg',
            'label': scene.label,
            'instances': [asdict(instance) for instance in scene.instances],
        }
        return split, json.dumps(record) + '\n'


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes a (H, W, 3) uint8 RGB picture as JPEG."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_whole(path, jpeg.tobytes(), synced=False)


def write_map(path: Path, values: np.ndarray) -> None:
    """Writes a (H, W) uint8 map as png."""
    write_whole(path, cv2.imencode('.png', values)[1].tobytes(), synced=False)


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Results of the work on each item, in order; a single worker stays in this process."""
    if workers == 1:
        yield from map(work, items)
        return
    # Not forked: the caller may hold threads (torch, OpenCV) whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        yield from pool.map(work, items, chunksize=30)
