"""Scenes in the folders of COCO and ADE20K, as mmdet's and mmseg's base configs expect them."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

from .coco import annotation, instances_file
from .extras import GAP, ExtraRenderer
from .files import in_processes, link_or_copy, write_image, write_map
from .writer import SceneFolder

# Raised whenever the same request would give other bytes here; the images have their own.
LAYOUTS_VERSION = 1
EXTRA_SHARE = 0.03
CHUNK = 120
COCO_FOLDERS = {'train': 'train2017', 'val': 'val2017'}
ADE_FOLDERS = {'train': 'training', 'val': 'validation'}
_PARTS = '.unfinished-layouts'

Chunk = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class SceneLayouts:
    """The same Scenes as COCO and ADE20K, beside their images.

    ``OUT/coco/{train2017,val2017}/000000000001.jpg`` and
    ``OUT/coco/annotations/instances_{train,val}2017.json``;
    ``OUT/ade/images/{training,validation}/ADE_{train,val}_00000001.jpg`` and
    ``OUT/ade/annotations/...png``: 0 unlabelled (within a crowd, between its members), 1
    background, 2 to 13 the classes. Images are hard links to those of Scenes, or copies where the
    disk has no links. After them come extra pictures (`ExtraRenderer`): 3 % empty, 3 % with crowds.

    Args:
        scenes: The finished folder of Scenes.
    """

    scenes: SceneFolder

    @property
    def request(self) -> dict:
        """What makes the bytes: written as layouts.json, compared before anything is written."""
        return {
            'layouts_version': LAYOUTS_VERSION,
            'extras': {split: self.extras(split) for split in COCO_FOLDERS},
            'scenes': self.scenes.request,
        }

    def extras(self, split: str) -> int:
        """Number of extra pictures of a split, half of them empty."""
        return 2 * int(np.ceil(EXTRA_SHARE * self.scenes.request['counts'][split]))

    @property
    def total(self) -> int:
        """Number of pictures, the extra ones included."""
        return sum(self._count(split) for split in COCO_FOLDERS)

    def is_complete(self) -> bool:
        """Whether both layouts are there.

        Raises:
            FileExistsError: They are there, finished or not, but are others.
        """
        out = self.scenes.out
        for path in (out / 'layouts.json', out / _PARTS / 'layouts.json'):
            if path.is_file() and json.loads(path.read_text()) != self.request:
                raise FileExistsError(
                    f'{out} holds COCO and ADE20K layouts other than those asked for (see {path}). '
                    f'Choose another --out or delete coco, ade, layouts.json and {_PARTS} there.'
                )
        return (out / 'layouts.json').is_file()

    def write(self, *, workers: int = 2) -> Iterator[int]:
        """Writes what is missing; an interrupted one goes on after its last whole chunk.

        Args:
            workers: Processes; 1 stays in this one.

        Yields:
            Number of pictures done so far, after each chunk; nothing if all were there.

        Raises:
            FileExistsError: Other layouts, or other Scenes, are there.
            FileNotFoundError: The Scenes are not finished, or a file of them is gone.
        """
        out = self.scenes.out
        if not self.scenes.is_complete():
            raise FileNotFoundError(f'{out} holds no finished Scenes; write them first.')
        if self.is_complete():
            return
        parts = out / _PARTS
        write_whole(parts / 'layouts.json', json.dumps(self.request, indent=2).encode())
        chunks = [
            (split, start, min(start + CHUNK, self._count(split)))
            for split in COCO_FOLDERS
            for start in range(0, self._count(split), CHUNK)
        ]
        missing = [chunk for chunk in chunks if not self._part(chunk).is_file()]
        done = sum(stop - start for _, start, stop in set(chunks) - set(missing))
        for count in in_processes(self.write_chunk, missing, workers):
            done += count
            yield done
        for split, folder in COCO_FOLDERS.items():
            self._write_instances(split, folder, [c for c in chunks if c[0] == split])
        os.replace(parts / 'layouts.json', out / 'layouts.json')
        shutil.rmtree(parts)

    def _count(self, split: str) -> int:
        return self.scenes.request['counts'][split] + self.extras(split)

    def _part(self, chunk: Chunk) -> Path:
        return self.scenes.out / _PARTS / f'{chunk[0]}-{chunk[1]:06d}.json'

    def _write_instances(self, split: str, folder: str, chunks: list[Chunk]) -> None:
        records = [r for chunk in chunks for r in json.loads(self._part(chunk).read_text())]
        description = f'Scenes ({split}), seed {self.scenes.seed}, {self.scenes.size} px'
        version = self.scenes.request['version']
        content = instances_file(records, description=description, version=version)
        path = self.scenes.out / 'coco' / 'annotations' / f'instances_{folder}.json'
        write_whole(path, json.dumps(content, separators=(',', ':')).encode())

    def write_chunk(self, chunk: Chunk) -> int:
        """Writes the pictures (split, start, stop) and then their records; returns their number."""
        split, start, stop = chunk
        cv2.setNumThreads(1)
        ordinary = self.scenes.request['counts'][split]
        lines = (self.scenes.out / f'{split}.jsonl').read_text().splitlines()
        renderer = ExtraRenderer(seed=self.scenes.seed, size=self.scenes.size)
        records = []
        for index in range(start, stop):
            if index < ordinary:
                records.append(self._lay_out_scene(split, index, json.loads(lines[index])))
            else:
                records.append(self._lay_out_extra(split, index, renderer, index - ordinary))
        write_whole(self._part(chunk), json.dumps(records).encode())
        return stop - start

    def _lay_out_scene(self, split: str, index: int, line: dict) -> dict:
        out = self.scenes.out
        truth = (out / 'annotations' / 'instance' / line['image']).with_suffix('.png')
        instance_map = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
        if instance_map is None:
            raise FileNotFoundError(
                f'{truth} is missing or broken; delete {out / "meta.json"} and run again.'
            )
        labels = [instance['label'] for instance in line['instances']]
        link_or_copy(out / line['image'], self._coco_image(split, index))
        return self._record(
            split, index, line['image'], instance_map, labels, [False] * len(labels)
        )

    def _lay_out_extra(self, split: str, index: int, renderer: ExtraRenderer, number: int) -> dict:
        extra = renderer.render(split, number)
        write_image(self._coco_image(split, index), extra.image)
        return self._record(split, index, '', extra.instance_map, extra.labels, extra.crowds)

    def _coco_image(self, split: str, index: int) -> Path:
        return self.scenes.out / 'coco' / COCO_FOLDERS[split] / f'{index + 1:012d}.jpg'

    def _record(
        self,
        split: str,
        index: int,
        scene: str,
        instance_map: np.ndarray,
        labels: list[int] | tuple[int, ...],
        crowds: list[bool] | tuple[bool, ...],
    ) -> dict:
        """Writes the picture's part of ADE20K; returns that of COCO."""
        ade, name = self.scenes.out / 'ade', f'{ADE_FOLDERS[split]}/ADE_{split}_{index + 1:08d}'
        image = self._coco_image(split, index)
        link_or_copy(image, ade / 'images' / f'{name}.jpg')
        write_map(ade / 'annotations' / f'{name}.png', ade_map(instance_map, labels))
        annotations = []
        for number, (label, crowd) in enumerate(zip(labels, crowds, strict=True), 1):
            mask = instance_map == number
            if crowd:
                mask |= instance_map == GAP
            annotations.append(annotation(mask, label=label, crowd=crowd))
        height, width = instance_map.shape
        return {
            'file_name': image.name, 'width': width, 'height': height, 'scene': scene,
            'annotations': annotations,
        }  # fmt: skip


def ade_map(instance_map: np.ndarray, labels: list[int] | tuple[int, ...]) -> np.ndarray:
    """ADE20K's values: 0 unlabelled (`GAP`), 1 background, class + 2.

    Args:
        instance_map: (H, W) uint8, 0 where there is no object, `GAP` within crowds.
        labels: Index into `CLASSES` of each number from 1.
    """
    values = np.zeros(GAP + 1, np.uint8)
    values[: len(labels) + 1] = [1, *(label + 2 for label in labels)]
    return values[instance_map]
