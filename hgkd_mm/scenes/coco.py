"""Masks as COCO writes them: polygons along the pixels' edges, run lengths where those fail."""

import cv2
import numpy as np

from .recipes import CLASSES, supercategory

Segmentation = list[list[int]] | dict[str, list[int]]


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
