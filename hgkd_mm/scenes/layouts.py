"""Scenes in the folders of COCO and ADE20K, as mmdet's and mmseg's base configs expect them."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hgkd_mm.utils.files import write_whole
from hgkd_mm.utils.signals import exit_on_sigterm

from .folder import Chunk, Chunks, SceneFolder, write_image, write_map
from .recipes import CLASSES, supercategory
from .renderer import GAP, ExtraRenderer

# Raised whenever the same request would give other bytes here; the images have their own.
LAYOUTS_VERSION = 1
EXTRA_SHARE = 0.03
COCO_FOLDERS = {'train': 'train2017', 'val': 'val2017'}
ADE_FOLDERS = {'train': 'training', 'val': 'validation'}

Segmentation = list[list[int]] | dict[str, list[int]]


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
        return sum(self._chunks.counts.values())

    @property
    def _chunks(self) -> Chunks:
        ordinary = self.scenes.request['counts']
        return Chunks(
            request=self.scenes.out / 'layouts.json',
            unfinished=self.scenes.out / '.unfinished-layouts',
            content=self.request,
            counts={split: ordinary[split] + self.extras(split) for split in COCO_FOLDERS},
            size=120,
        )

    def is_complete(self) -> bool:
        """Whether both layouts are there.

        Raises:
            FileExistsError: They are there, finished or not, but are others.
        """
        if conflict := self._chunks.conflict():
            raise FileExistsError(
                f'{self.scenes.out} holds COCO and ADE20K layouts other than those asked for (see '
                f'{conflict[0]}). Choose another --out or delete coco, ade, layouts.json and '
                f'{self._chunks.unfinished.name} there.'
            )
        return self._chunks.request.is_file()

    def write(self, *, workers: int = 2) -> Iterator[int]:
        """Writes what is missing.

        Args:
            workers: Processes; 1 stays in this one.

        Yields:
            Number of pictures done so far, after each chunk; nothing if all were there.

        Raises:
            FileExistsError: Other layouts, or other Scenes, are there.
            FileNotFoundError: The Scenes are not finished, or a file of them is gone.
        """
        if not self.scenes.is_complete():
            raise FileNotFoundError(
                f'{self.scenes.out} holds no finished Scenes; write them first.'
            )
        if self.is_complete():
            return
        chunks = self._chunks
        yield from chunks.write(self.write_chunk, workers)
        for split, folder in COCO_FOLDERS.items():
            parts = [chunks.records(chunk).read_text() for chunk in chunks.of_split(split)]
            content = instances_file(
                [record for part in parts for record in json.loads(part)],
                description=f'Scenes ({split}), seed {self.scenes.seed}, {self.scenes.size} px',
                version=self.scenes.request['version'],
            )
            path = self.scenes.out / 'coco' / 'annotations' / f'instances_{folder}.json'
            write_whole(path, json.dumps(content, separators=(',', ':')).encode())
        chunks.finish()

    def write_chunk(self, chunk: Chunk) -> int:
        """Writes the pictures of a chunk and then their records; returns their number."""
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
        write_whole(self._chunks.records(chunk), json.dumps(records).encode())
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
        _link_or_copy(out / line['image'], self._coco_image(split, index))
        crowds = [False] * len(labels)
        return self._record(split, index, line['image'], instance_map, labels, crowds)

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
        labels: Sequence[int],
        crowds: Sequence[bool],
    ) -> dict:
        """Writes the picture's part of ADE20K; returns that of COCO."""
        ade, name = self.scenes.out / 'ade', f'{ADE_FOLDERS[split]}/ADE_{split}_{index + 1:08d}'
        image = self._coco_image(split, index)
        _link_or_copy(image, ade / 'images' / f'{name}.jpg')
        write_map(ade / 'annotations' / f'{name}.png', _ade_map(instance_map, labels))
        annotations = []
        for number, (label, crowd) in enumerate(zip(labels, crowds, strict=True), 1):
            mask = np.isin(instance_map, [number, GAP] if crowd else [number])
            annotations.append(annotation(mask, label=label, crowd=crowd))
        height, width = instance_map.shape
        return {
            'file_name': image.name,
            'width': width,
            'height': height,
            'scene': scene,
            'annotations': annotations,
        }


def _ade_map(instance_map: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """ADE20K's values: 0 unlabelled (`GAP`), 1 background, class + 2."""
    values = np.zeros(GAP + 1, np.uint8)
    values[: len(labels) + 1] = [1, *(label + 2 for label in labels)]
    return values[instance_map]


def _link_or_copy(source: Path, target: Path) -> None:
    """Puts a file at a second place: a hard link, or a copy where the disk has no such links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        partial = target.with_name(target.name + '.part')
        shutil.copyfile(source, partial)
        os.replace(partial, target)


def segmentation(mask: np.ndarray, *, crowd: bool = False) -> Segmentation:
    """A mask as pycocotools reads it, exact to the pixel.

    Polygons run along the pixels' edges, one for each part of an object that others cut in
    several. They add up and cannot cut a hole, so a mask with a hole (a mug's handle, a key's
    ring) becomes uncompressed run lengths, as does a crowd, which COCO has in no other form, and
    whatever pycocotools does not draw exactly from its polygons.

    Args:
        mask: (H, W) bool, not empty.
        crowd: Whether it is a crowd's.

    Returns:
        Polygons, each [x0, y0, x1, y1, ...], or ``{'size': [H, W], 'counts': [...]}``.
    """
    # Imported here: Scenes as folders of classes do without it.
    from pycocotools import mask as mask_utils

    polygons = None if crowd else outlines(mask)
    if polygons:
        drawn = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(polygons, *mask.shape)))
        if np.array_equal(drawn.astype(bool), mask):
            return polygons
    return run_lengths(mask)


def outlines(mask: np.ndarray) -> list[list[int]] | None:
    """Corners of a mask's parts along the pixels' edges, or None if there is a hole.

    Args:
        mask: (H, W) bool.

    Returns:
        One closed outline for each part, [x0, y0, x1, y1, ...] in pixels.
    """
    # OpenCV's contours run through the centers of pixels. With three pixels for one, the centers
    # of a border lie within a third of a pixel of its edges, so rounding gives the edges.
    fine = mask.astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None or (hierarchy[0, :, 3] >= 0).any():
        return None
    return [_corners((contour[:, 0] + 1) // 3).ravel().tolist() for contour in contours]


def _corners(outline: np.ndarray) -> np.ndarray:
    """The (N, 2) outline without points that repeat or lie on a straight line."""
    outline = outline[(outline != np.roll(outline, 1, axis=0)).any(axis=1)]
    before, after = outline - np.roll(outline, 1, axis=0), np.roll(outline, -1, axis=0) - outline
    return outline[(before != after).any(axis=1)]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Uncompressed run lengths of a (H, W) bool mask, down the columns, zeros first."""
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    starts = [0, 0] if flat[0] else [0]
    edges = np.concatenate([starts, changes, [flat.size]])
    return {'size': list(mask.shape), 'counts': np.diff(edges).tolist()}


def annotation(mask: np.ndarray, *, label: int, crowd: bool = False) -> dict:
    """COCO's record of an instance, without the ids of itself and of its image.

    Args:
        mask: (H, W) bool, not empty.
        label: Index into `CLASSES`; categories are numbered from 1.
        crowd: Whether it stands for many objects.
    """
    return {
        'category_id': label + 1,
        'segmentation': segmentation(mask, crowd=crowd),
        'area': int(mask.sum()),
        'bbox': list(cv2.boundingRect(mask.astype(np.uint8))),
        'iscrowd': int(crowd),
    }


def instances_file(records: list[dict], *, description: str, version: int) -> dict:
    """The content of COCO's ``instances_*.json``.

    Args:
        records: One an image: ``file_name``, ``width``, ``height``, ``scene`` (the file of Scenes
            that it is, empty for extra pictures) and its ``annotations``.
        description: What the data set is.
        version: Its version.
    """
    images, annotations = [], []
    for image_id, record in enumerate(records, 1):
        image = {key: value for key, value in record.items() if key != 'annotations'}
        images.append({'id': image_id, 'license': 1, **image})
        for found in record['annotations']:
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, **found})
    return {
        'info': {
            'description': description, 'url': '', 'version': str(version), 'year': 2026,
            'contributor': 'hgkd_mm', 'date_created': '',
        },
        'licenses': [
            {'id': 1, 'name': 'Apache-2.0', 'url': 'https://www.apache.org/licenses/LICENSE-2.0'}
        ],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': number, 'name': name, 'supercategory': supercategory(name)}
            for number, name in enumerate(CLASSES, 1)
        ],
    }  # fmt: skip


def make_scenes(folder: SceneFolder, *, layouts: bool = True, workers: int = 2) -> None:
    """Writes Scenes and shows how far they are; what is there already is kept.

    Args:
        folder: Where and how many.
        layouts: Those of COCO and ADE20K as well, which detection and segmentation read.
        workers: Processes.

    Raises:
        FileExistsError: The folder holds other Scenes.
        FileNotFoundError: A file of the finished Scenes is gone.
        ValueError: Seed, size, a count or the workers cannot be.
    """
    added = SceneLayouts(scenes=folder)
    if folder.is_complete() and (not layouts or added.is_complete()):
        print(f'{folder.out} already holds these Scenes; nothing to do.')
        return
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    parts = {'Scenes': folder} | ({'COCO and ADE20K': added} if layouts else {})
    # A terminated run takes its worker processes with it.
    with exit_on_sigterm(), Progress(*columns, TimeRemainingColumn()) as progress:
        for name, part in parts.items():
            bar = progress.add_task(name, total=part.total)
            for done in part.write(workers=workers):
                progress.update(bar, completed=done)
            progress.update(bar, completed=part.total)
    written = f'{folder.out}: {folder.train} training and {folder.val} validation images'
    extra = [added.extras(split) for split in COCO_FOLDERS]
    more = f'; coco/ and ade/ have {extra[0]} and {extra[1]} more, empty ones and crowds'
    print(f'{written}{more if layouts else ""}.')
