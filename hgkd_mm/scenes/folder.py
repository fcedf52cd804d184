"""Scenes as ordinary folders: JPEG by class, png truth, one JSON line an image."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

from .recipes import CLASSES
from .renderer import SceneRenderer

# Raised whenever the same request would give other bytes.
VERSION = 2
JPEG_QUALITY = 92
# Split, first picture, and the one after the last.
Chunk = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class SceneFolder:
    """Scenes written below a folder.

    ``OUT/{train,val}/<class>/000123.jpg`` are the images,
    ``OUT/annotations/{semantic,instance}/{train,val}/<class>/000123.png`` their maps (`Scene`),
    ``OUT/{train,val}.jsonl`` their labels and boxes, ``OUT/meta.json`` what was asked for. The
    maps lie as the images do, which is how mmseg's data sets look for them. `SceneLayouts` adds the
    layouts of COCO and ADE20K.

    Args:
        out: The folder.
        seed: Seed of the data set.
        size: Side of the images in pixels.
        train: Number of training images.
        val: Number of validation images.
    """

    out: Path
    seed: int = 0
    size: int = 128
    train: int = 6000
    val: int = 1200

    @property
    def request(self) -> dict:
        """What makes the bytes: written as meta.json, compared before anything is rendered."""
        return {
            'name': 'Scenes',
            'version': VERSION,
            'classes': list(CLASSES),
            'seed': self.seed,
            'size': self.size,
            'counts': {'train': self.train, 'val': self.val},
        }

    @property
    def total(self) -> int:
        """Number of images."""
        return self.train + self.val

    @property
    def _chunks(self) -> Chunks:
        return Chunks(
            request=self.out / 'meta.json',
            unfinished=self.out / '.unfinished',
            content=self.request,
            counts=self.request['counts'],
            size=60,
        )

    def is_complete(self) -> bool:
        """Whether the folder already holds exactly what is asked for.

        Raises:
            FileExistsError: It holds other Scenes, finished or not.
        """
        if conflict := self._chunks.conflict():
            there = {
                k: conflict[1].get(k) for k, v in self.request.items() if conflict[1].get(k) != v
            }
            raise FileExistsError(
                f'{self.out} holds Scenes that differ from what is asked for in '
                f'{", ".join(there)} ({[*there.values()]} there, '
                f'{[self.request[k] for k in there]} asked for). '
                'Choose another --out or delete that folder.'
            )
        return self._chunks.request.is_file()

    def write(self, *, workers: int = 2) -> Iterator[int]:
        """Renders what is missing and finishes the folder.

        Args:
            workers: Processes to render with; 1 renders in this one.

        Yields:
            Number of images done so far, after each chunk; nothing if all were there.

        Raises:
            FileExistsError: The folder holds other Scenes.
            ValueError: Seed, size, a count or the workers cannot be.
        """
        if min(self.train, self.val) < 0 or workers < 1:
            raise ValueError(
                'Scenes need train >= 0, val >= 0 and workers >= 1, '
                f'got train={self.train}, val={self.val}, workers={workers}.'
            )
        SceneRenderer(seed=self.seed, size=self.size)  # refuses bad values before any file is made
        if self.is_complete():
            return
        chunks = self._chunks
        yield from chunks.write(self.write_chunk, workers)
        for split in chunks.counts:
            lines = [chunks.records(chunk).read_bytes() for chunk in chunks.of_split(split)]
            write_whole(self.out / f'{split}.jsonl', b''.join(lines))
        chunks.finish()

    def write_chunk(self, chunk: Chunk) -> int:
        """Writes the images of a chunk and then their lines; returns how many."""
        split, start, stop = chunk
        cv2.setNumThreads(1)
        renderer = SceneRenderer(seed=self.seed, size=self.size)
        lines = []
        for index in range(start, stop):
            scene = renderer.render(split, index)
            name = f'{split}/{CLASSES[scene.label]}/{index:06d}'
            write_image(self.out / f'{name}.jpg', scene.image)
            maps = {'semantic': scene.semantic_map, 'instance': scene.instance_map}
            for kind, truth in maps.items():
                write_map(self.out / 'annotations' / kind / f'{name}.png', truth)
            record = {
                'image': f'{name}.jpg',
                'label': scene.label,
                'instances': [asdict(instance) for instance in scene.instances],
            }
            lines.append(json.dumps(record) + '\n')
        write_whole(self._chunks.records(chunk), ''.join(lines).encode())
        return stop - start


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes a (H, W, 3) uint8 RGB picture as JPEG."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_whole(path, jpeg.tobytes(), synced=False)


def write_map(path: Path, values: np.ndarray) -> None:
    """Writes a (H, W) uint8 map as png."""
    write_whole(path, cv2.imencode('.png', values)[1].tobytes(), synced=False)


def contact_sheet(renderer: SceneRenderer, *, split: str = 'train', rows: int = 7) -> np.ndarray:
    """Scenes side by side, one class a column: (rows * size, 12 * size, 3) uint8 RGB."""
    columns = len(CLASSES)
    images = [renderer.render(split, index).image for index in range(rows * columns)]
    return np.concatenate(
        [np.concatenate(images[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    )


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """Pictures of a folder that are written in chunks.

    A chunk counts as written once its records are: after an interruption only the chunks without
    records are written again, to the same bytes.

    Args:
        request: File that says what the finished folder holds.
        unfinished: Folder of that file and of the records until all is written.
        content: What is asked for.
        counts: Pictures of each split.
        size: Pictures of a chunk.
    """

    request: Path
    unfinished: Path
    content: dict
    counts: dict[str, int]
    size: int

    def conflict(self) -> tuple[Path, dict] | None:
        """What was asked for here, finished or not, if it is something else."""
        for path in (self.request, self.unfinished / self.request.name):
            if path.is_file() and (found := json.loads(path.read_text())) != self.content:
                return path, found
        return None

    def of_split(self, split: str) -> list[Chunk]:
        """The chunks of a split."""
        count = self.counts[split]
        starts = range(0, count, self.size)
        return [(split, start, min(start + self.size, count)) for start in starts]

    def records(self, chunk: Chunk) -> Path:
        """The file of a chunk's records."""
        return self.unfinished / f'{chunk[0]}-{chunk[1]:06d}.json'

    def write(self, work: Callable[[Chunk], int], workers: int) -> Iterator[int]:
        """Does the work on the chunks without records.

        Args:
            work: Writes a chunk's pictures and then its records; returns its number of pictures.
            workers: Processes; 1 stays in this one.

        Yields:
            Number of pictures done so far, after each chunk.
        """
        write_whole(
            self.unfinished / self.request.name, json.dumps(self.content, indent=2).encode()
        )
        chunks = [chunk for split in self.counts for chunk in self.of_split(split)]
        missing = [chunk for chunk in chunks if not self.records(chunk).is_file()]
        done = sum(self.counts.values()) - sum(stop - start for _, start, stop in missing)
        for count in _in_processes(work, missing, workers):
            done += count
            yield done

    def finish(self) -> None:
        """Says that all is written, and removes the records."""
        os.replace(self.unfinished / self.request.name, self.request)
        shutil.rmtree(self.unfinished)


def _in_processes(
    work: Callable[[Chunk], int], chunks: Sequence[Chunk], workers: int
) -> Iterator[int]:
    """Results of the work on each chunk, in order; 1 worker or chunk stays in this process."""
    if workers == 1 or len(chunks) < 2:
        yield from map(work, chunks)
        return
    # Not forked: the caller may hold threads (torch, OpenCV) whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        yield from pool.map(work, chunks)
