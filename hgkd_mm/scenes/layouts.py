"""Scenes in the folders of COCO and ADE20K, as mmdet's and mmseg's base configs expect them."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

from .recipes import CLASSES
from .renderer import GAP, Scene

# Raised whenever the same request would give other pictures or masks here.
LAYOUTS_VERSION = 1
_ADE_FOLDERS = {'train': 'training', 'val': 'validation'}


def lay_out(out: Path, split: str, index: int, scene: Scene) -> dict:
    """Writes a picture in both layouts.

    It is ``OUT/coco/{train2017,val2017}/000000000001.jpg`` and
    ``OUT/ade/images/{training,validation}/ADE_{train,val}_00000001.jpg``, with
    ``OUT/ade/annotations/...png``: 0 unlabelled (within a crowd, between its members), 1
    background, 2 to 13 the classes.

    Args:
        out: The folder.
        split: 'train' or 'val'.
        index: From 0.
        scene: The picture.

    Returns:
        Its record for `write_instances`.
    """
    name, height = f'{index + 1:012d}.jpg', len(scene.instance_map)
    write_whole(out / 'coco' / f'{split}2017' / name, scene.jpeg, synced=False)
    ade = f'{_ADE_FOLDERS[split]}/ADE_{split}_{index + 1:08d}'
    write_whole(out / 'ade' / 'images' / f'{ade}.jpg', scene.jpeg, synced=False)
    # In numbers of the instance map.
    values = np.zeros(GAP + 1, np.uint8)
    values[: len(scene.instances) + 1] = [1, *(found.label + 2 for found in scene.instances)]
    png = cv2.imencode('.png', values[scene.instance_map])[1].tobytes()
    write_whole(out / 'ade' / 'annotations' / f'{ade}.png', png, synced=False)
    annotations = [_annotation(scene, number) for number in range(1, len(scene.instances) + 1)]
    return {'file_name': name, 'width': height, 'height': height, 'annotations': annotations}


def _annotation(scene: Scene, number: int) -> dict:
    """COCO's record of an instance, without ids; its mask is pycocotools' run lengths."""
    # Imported here: Scenes as folders of classes do without it.
    from pycocotools import mask as mask_utils

    crowd = scene.crowd and number == 1
    mask = np.isin(scene.instance_map, [number, GAP] if crowd else [number])
    runs = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    return {
        'category_id': scene.instances[number - 1].label + 1,
        'segmentation': {'size': runs['size'], 'counts': runs['counts'].decode()},
        'area': int(mask.sum()),
        'bbox': mask_utils.toBbox(runs).tolist(),
        'iscrowd': int(crowd),
    }


def write_instances(out: Path, split: str, records: list[dict]) -> None:
    """Writes COCO's ``OUT/coco/annotations/instances_{train,val}2017.json``."""
    numbers = count(1)
    annotations = [
        {'id': next(numbers), 'image_id': image_id, **annotation}
        for image_id, record in enumerate(records, 1)
        for annotation in record.pop('annotations')
    ]
    content = {
        'info': {'description': 'Scenes'},
        'images': [{'id': image_id, **record} for image_id, record in enumerate(records, 1)],
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)],
    }
    path = out / 'coco' / 'annotations' / f'instances_{split}2017.json'
    write_whole(path, json.dumps(content, separators=(',', ':')).encode())
