"""Scenes as ordinary folders: JPEG by class, one JSON line an image; and as COCO and ADE20K."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
from rich.progress import track

from hgkd_mm.utils.files import write_whole
from hgkd_mm.utils.process import exit_on_sigterm

from .extras import render_extra
from .layouts import LAYOUTS_VERSION, lay_out, write_instances
from .recipes import CLASSES
from .renderer import Scene, render_scene

# Raised whenever the same request would give other bytes.
VERSION = 2
EXTRA_SHARE = 0.03

Picture = tuple[str, int]  # split, index
Result = TypeVar('Result')


@dataclass(frozen=True, kw_only=True)
class SceneFolder:
    """Scenes below a folder.

    ``OUT/{train,val}/<class>/000123.jpg`` are the images, ``OUT/{train,val}.jsonl`` their labels
    and boxes; ``OUT/meta.json``, written last, is what was asked for. ``OUT/coco`` and ``OUT/ade``
    are the same as COCO and ADE20K (`lay_out`), with extra pictures (`render_extra`) after them:
    3 % are empty, 3 % have a crowd. ``OUT/layouts.json`` is written after them.

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

    def pictures(self, *, layouts: bool) -> list[Picture]:
        """All of them; with the layouts, each split ends with its extra ones."""
        counts = self.request['counts'].items()
        extras = self._layouts_request['extras'] if layouts else {'train': 0, 'val': 0}
        return [(split, i) for split, count in counts for i in range(count + extras[split])]

    def is_complete(self, *, layouts: bool = False) -> bool:
        """Whether the folder already holds exactly what is asked for.

        Raises:
            FileExistsError: It holds other Scenes, finished or not.
        """
        for name in ('meta.json', 'unfinished.json', 'layouts.json'):
            wanted = self._layouts_request if name == 'layouts.json' else self.request
            path = self.out / name
            there = json.loads(path.read_text()) if path.is_file() else wanted
            other = [f'{k} {there.get(k)}, not {v}' for k, v in wanted.items() if there.get(k) != v]
            if other:
                raise FileExistsError(
                    f'{path} is of other Scenes: {"; ".join(other)}. Choose another --out or '
                    f'delete {self.out}.'
                )
        needed = ('meta.json', 'layouts.json') if layouts else ('meta.json',)
        return all((self.out / name).is_file() for name in needed)

    def write(self, *, layouts: bool = False, workers: int = 2) -> Iterator[None]:
        """Renders the pictures, from the first again if a former call was interrupted.

        Args:
            layouts: Those of COCO and ADE20K as well.
            workers: Processes to render with; 1 renders in this one.

        Yields:
            After each picture; never if all are there.

        Raises:
            FileExistsError: The folder holds other Scenes.
        """
        if self.is_complete(layouts=layouts):
            return
        finished, unfinished = self.out / 'meta.json', self.out / 'unfinished.json'
        write_whole(unfinished, json.dumps(self.request, indent=2).encode())
        lines: dict[str, list[str]] = {'train': [], 'val': []}
        records: dict[str, list[dict]] = {'train': [], 'val': []}
        pictures = self.pictures(layouts=layouts)
        work = functools.partial(self._write_picture, layouts=layouts)
        for (split, _), (line, record) in zip(
            pictures, _in_processes(work, pictures, workers), strict=True
        ):
            lines[split].append(line)
            records[split].append(record)
            yield
        for split in lines:
            write_whole(self.out / f'{split}.jsonl', ''.join(lines[split]).encode())
            if layouts:
                write_instances(self.out, split, records[split])
        if layouts:
            mark = json.dumps(self._layouts_request, indent=2)
            write_whole(self.out / 'layouts.json', mark.encode())
        if finished.is_file():  # its time says when the images were made
            unfinished.unlink()
        else:
            os.replace(unfinished, finished)

    @property
    def _layouts_request(self) -> dict:
        counts = self.request['counts'].items()
        extras = {split: 2 * math.ceil(EXTRA_SHARE * count) for split, count in counts}
        return {'layouts_version': LAYOUTS_VERSION, 'extras': extras, 'scenes': self.request}

    def _write_picture(self, picture: Picture, *, layouts: bool) -> tuple[str, dict]:
        """Writes a picture; returns its line, empty for an extra one, and its record in COCO."""
        cv2.setNumThreads(1)
        split, index = picture
        ordinary, how = self.request['counts'][split], dict(seed=self.seed, size=self.size)
        if index < ordinary:
            scene = render_scene(split, index, **how)
            line = self._write_scene(split, index, scene)
        else:
            scene, line = render_extra(split, index - ordinary, **how), ''
        return line, lay_out(self.out, split, index, scene) if layouts else {}

    def _write_scene(self, split: str, index: int, scene: Scene) -> str:
        label = index % len(CLASSES)
        name = f'{split}/{CLASSES[label]}/{index:06d}.jpg'
        write_whole(self.out / name, scene.jpeg, synced=False)
        instances = [asdict(instance) for instance in scene.instances]
        return json.dumps({'image': name, 'label': label, 'instances': instances}) + '\n'


def make_scenes(folder: SceneFolder, *, layouts: bool = True, workers: int = 2) -> None:
    """Writes Scenes and shows how far they are; what is complete already is kept.

    Args:
        folder: Where and how many.
        layouts: Those of COCO and ADE20K as well, which detection and segmentation read.
        workers: Processes.

    Raises:
        FileExistsError: The folder holds other Scenes.
    """
    if not folder.is_complete(layouts=layouts):
        writing = folder.write(layouts=layouts, workers=workers)
        # A terminated run takes its worker processes with it.
        with exit_on_sigterm():
            for _ in track(writing, 'Scenes', len(folder.pictures(layouts=layouts))):
                pass
    added = ', also as COCO and ADE20K' if layouts else ''
    print(f'{folder.out}: {folder.train} training and {folder.val} validation images{added}.')


def _in_processes(
    work: Callable[[Picture], Result], pictures: Sequence[Picture], workers: int
) -> Iterator[Result]:
    """Results of the work on each picture, in order; a single worker stays in this process."""
    if workers == 1:
        yield from map(work, pictures)
        return
    # Not forked: the caller may hold threads (torch, OpenCV) whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        yield from pool.map(work, pictures, chunksize=30)
