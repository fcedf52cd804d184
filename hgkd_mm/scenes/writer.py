"""Scenes as ordinary folders: JPEG by class, png truth, one JSON line an image."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

from .files import in_processes, write_image, write_map
from .objects import CLASSES
from .renderer import Scene, SceneRenderer

# Raised whenever the same request would give other bytes.
VERSION = 2
CHUNK = 60
_PARTS = '.unfinished'


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

    def is_complete(self) -> bool:
        """Whether the folder already holds exactly what is asked for.

        Raises:
            FileExistsError: It holds other Scenes, finished or not.
        """
        for path in (self.out / 'meta.json', self.out / _PARTS / 'meta.json'):
            if not path.is_file():
                continue
            found = json.loads(path.read_text())
            if found != self.request:
                different = [k for k, v in self.request.items() if found.get(k) != v]
                raise FileExistsError(
                    f'{self.out} holds Scenes that differ from what is asked for in '
                    f'{", ".join(different)} ({[found.get(k) for k in different]} there, '
                    f'{[self.request[k] for k in different]} asked for). '
                    'Choose another --out or delete that folder.'
                )
        return (self.out / 'meta.json').is_file()

    def write(self, *, workers: int = 2) -> Iterator[int]:
        """Renders what is missing and finishes the folder.

        A chunk counts as written once its lines are: after an interruption only the chunks
        without lines are rendered again, to the same bytes.

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
        parts = self.out / _PARTS
        parts.mkdir(parents=True, exist_ok=True)
        write_whole(parts / 'meta.json', json.dumps(self.request, indent=2).encode())
        chunks = [
            (split, start, min(start + CHUNK, count))
            for split, count in self.request['counts'].items()
            for start in range(0, count, CHUNK)
        ]
        missing = [chunk for chunk in chunks if not self._lines(chunk).is_file()]
        done = sum(stop - start for _, start, stop in chunks)
        done -= sum(stop - start for _, start, stop in missing)
        for count in in_processes(self.write_chunk, missing, workers):
            done += count
            yield done
        for split in self.request['counts']:
            lines = [self._lines(chunk).read_bytes() for chunk in chunks if chunk[0] == split]
            write_whole(self.out / f'{split}.jsonl', b''.join(lines))
        os.replace(parts / 'meta.json', self.out / 'meta.json')
        shutil.rmtree(parts)

    def _lines(self, chunk: tuple[str, int, int]) -> Path:
        return self.out / _PARTS / f'{chunk[0]}-{chunk[1]:06d}.jsonl'

    def write_chunk(self, chunk: tuple[str, int, int]) -> int:
        """Writes the images (split, start, stop) and then their lines; returns their number."""
        split, start, stop = chunk
        cv2.setNumThreads(1)
        renderer = SceneRenderer(seed=self.seed, size=self.size)
        lines = []
        for index in range(start, stop):
            scene = renderer.render(split, index)
            name = f'{split}/{CLASSES[scene.label]}/{index:06d}'
            self._write_scene(name, scene)
            record = {
                'image': f'{name}.jpg',
                'label': scene.label,
                'instances': [asdict(instance) for instance in scene.instances],
            }
            lines.append(json.dumps(record) + '\n')
        write_whole(self._lines(chunk), ''.join(lines).encode())
        return stop - start

    def _write_scene(self, name: str, scene: Scene) -> None:
        write_image(self.out / f'{name}.jpg', scene.image)
        for kind, truth in (('semantic', scene.semantic_map), ('instance', scene.instance_map)):
            write_map(self.out / 'annotations' / kind / f'{name}.png', truth)


def contact_sheet(renderer: SceneRenderer, *, split: str = 'train', rows: int = 7) -> np.ndarray:
    """Scenes side by side, one class a column.

    Args:
        renderer: What renders them.
        split: Whose scenes.
        rows: Scenes of each class.

    Returns:
        (rows * size, 12 * size, 3) uint8 RGB.
    """
    columns = len(CLASSES)
    images = [renderer.render(split, index).image for index in range(rows * columns)]
    return np.concatenate(
        [np.concatenate(images[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    )
