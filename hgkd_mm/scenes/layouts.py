"""Scenes in the folders of COCO and ADE20K, as mmdet's and mmseg's base configs expect them."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
from rich.progress import track

from hgkd_mm.utils.files import write_whole
from hgkd_mm.utils.signals import exit_on_sigterm

from .extras import GAP, render_extra
from .folder import SceneFolder, in_processes, write_image, write_map
from .recipes import CLASSES

# Raised whenever the same request would give other pictures or masks here.
LAYOUTS_VERSION = 1
EXTRA_SHARE = 0.03
COCO_FOLDERS = {'train': 'train2017', 'val': 'val2017'}
ADE_FOLDERS = {'train': 'training', 'val': 'validation'}


def make_scenes(folder: SceneFolder, *, layouts: bool = True, workers: int = 2) -> None:
    """Writes Scenes and shows how far they are; what is complete already is kept.

    Args:
        folder: Where and how many.
        layouts: Those of COCO and ADE20K as well, which detection and segmentation read.
        workers: Processes.

    Raises:
        FileExistsError: The folder holds other Scenes.
        FileNotFoundError: A file of the finished Scenes is gone.
    """
    images = folder.train + folder.val
    # A terminated run takes its worker processes with it.
    with exit_on_sigterm():
        if not folder.is_complete():
            for _ in track(folder.write(workers=workers), 'Scenes', images):
                pass
        if layouts and not layouts_complete(folder):
            total = images + sum(extras(folder).values())
            for _ in track(write_layouts(folder, workers=workers), 'COCO and ADE20K', total):
                pass
    added = ', also as COCO and ADE20K' if layouts else ''
    print(f'{folder.out}: {folder.train} training and {folder.val} validation images{added}.')


def extras(folder: SceneFolder) -> dict[str, int]:
    """Number of extra pictures (`render_extra`) of each split: 3 % are empty, 3 % have a crowd."""
    counts = folder.request['counts']
    return {split: 2 * math.ceil(EXTRA_SHARE * number) for split, number in counts.items()}


def layouts_complete(folder: SceneFolder) -> bool:
    """Whether both layouts are there.

    Raises:
        FileExistsError: They are there, but of other Scenes.
    """
    path = folder.out / 'layouts.json'
    if path.is_file() and json.loads(path.read_text()) != _request(folder):
        raise FileExistsError(
            f'{path} is of other Scenes than {folder.out / "meta.json"}: delete it, coco and ade.'
        )
    return path.is_file()


def write_layouts(folder: SceneFolder, *, workers: int = 2) -> Iterator[None]:
    """Writes finished Scenes, and the extra pictures after them, as COCO and ADE20K.

    ``OUT/coco/{train2017,val2017}/000000000001.jpg`` and
    ``OUT/coco/annotations/instances_{train,val}2017.json``;
    ``OUT/ade/images/{training,validation}/ADE_{train,val}_00000001.jpg`` and
    ``OUT/ade/annotations/...png``: 0 unlabelled (within a crowd, between its members), 1
    background, 2 to 13 the classes.

    Args:
        folder: The finished Scenes.
        workers: Processes; 1 stays in this one.

    Yields:
        After each picture; never if all are there.

    Raises:
        FileExistsError: Layouts of other Scenes are there.
        FileNotFoundError: The Scenes are not finished, or a file of them is gone.
    """
    if layouts_complete(folder):
        return
    pictures = []
    for split, number in extras(folder).items():
        lines = (folder.out / f'{split}.jsonl').read_text().splitlines()
        pictures += [(split, index, line) for index, line in enumerate(lines)]
        pictures += [(split, len(lines) + index, index) for index in range(number)]
    records: dict[str, list[dict]] = {split: [] for split in COCO_FOLDERS}
    for split, record in in_processes(functools.partial(_lay_out, folder), pictures, workers):
        records[split].append(record)
        yield
    for split, name in COCO_FOLDERS.items():
        path = folder.out / 'coco' / 'annotations' / f'instances_{name}.json'
        content = _instances_file(records[split])
        write_whole(path, json.dumps(content, separators=(',', ':')).encode())
    write_whole(folder.out / 'layouts.json', json.dumps(_request(folder), indent=2).encode())


def _request(folder: SceneFolder) -> dict:
    return {
        'layouts_version': LAYOUTS_VERSION,
        'extras': extras(folder),
        'scenes': folder.request,
    }


def _lay_out(folder: SceneFolder, picture: tuple[str, int, str | int]) -> tuple[str, dict]:
    """Writes a picture, either a line of Scenes or the index of an extra one, in both layouts.

    Returns:
        Its split, and its record in COCO's file with its annotations.
    """
    cv2.setNumThreads(1)
    split, index, source = picture
    coco = folder.out / 'coco' / COCO_FOLDERS[split] / f'{index + 1:012d}.jpg'
    if isinstance(source, str):
        scene = json.loads(source)
        truth = (folder.out / 'annotations/instance' / scene['image']).with_suffix('.png')
        instance_map = cv2.imdecode(np.fromfile(truth, np.uint8), cv2.IMREAD_UNCHANGED)
        labels, crowd = [instance['label'] for instance in scene['instances']], None
        write_whole(coco, (folder.out / scene['image']).read_bytes(), synced=False)
    else:
        extra = render_extra(split, source, seed=folder.seed, size=folder.size)
        instance_map, labels, crowd = extra.instance_map, extra.labels, 1
        write_image(coco, extra.image)
    ade, name = folder.out / 'ade', f'{ADE_FOLDERS[split]}/ADE_{split}_{index + 1:08d}'
    write_whole(ade / 'images' / f'{name}.jpg', coco.read_bytes(), synced=False)
    write_map(ade / 'annotations' / f'{name}.png', _ade_map(instance_map, labels))
    height, width = instance_map.shape
    annotations = [
        _annotation(instance_map, number, label, crowd=number == crowd)
        for number, label in enumerate(labels, 1)
    ]
    record = dict(file_name=coco.name, width=width, height=height, annotations=annotations)
    return split, record


def _ade_map(instance_map: np.ndarray, labels: list[int]) -> np.ndarray:
    """ADE20K's values: 0 unlabelled (`GAP`), 1 background, class + 2."""
    values = np.zeros(GAP + 1, np.uint8)
    values[: len(labels) + 1] = [1, *(label + 2 for label in labels)]
    return values[instance_map]


def _annotation(instance_map: np.ndarray, number: int, label: int, *, crowd: bool) -> dict:
    """COCO's record of an instance, without ids; its mask is pycocotools' run lengths."""
    # Imported here: Scenes as folders of classes do without it.
    from pycocotools import mask as mask_utils

    mask = np.isin(instance_map, [number, GAP] if crowd else [number])
    runs = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    return {
        'category_id': label + 1,
        'segmentation': {'size': runs['size'], 'counts': runs['counts'].decode()},
        'area': int(mask.sum()),
        'bbox': mask_utils.toBbox(runs).tolist(),
        'iscrowd': int(crowd),
    }


def _instances_file(records: list[dict]) -> dict:
    """The content of COCO's ``instances_*.json``."""
    numbers = count(1)
    annotations = [
        {'id': next(numbers), 'image_id': image_id, **annotation}
        for image_id, record in enumerate(records, 1)
        for annotation in record.pop('annotations')
    ]
    return {
        'info': {'description': 'Scenes'},
        'images': [{'id': image_id, **record} for image_id, record in enumerate(records, 1)],
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)],
    }
