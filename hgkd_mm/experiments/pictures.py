"""Predictions of fine-tuned detectors and segmentors beside the truth, as pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmengine.structures import InstanceData
from mmseg.apis import inference_model, init_model
from numpy.typing import NDArray
from pycocotools.coco import COCO

from hgkd_mm.inspect import draw_predictions
from hgkd_mm.scenes import CLASSES

from .training import Job

TRUTH = 'ground truth'


def draw_detection(path: Path, jobs: dict[str, Job], scenes: Path, count: int = 4) -> None:
    """Boxes and masks of every start beside the truth, on images with several objects.

    As many detections are shown as there are objects, those of the highest scores.

    Args:
        path: PNG to write.
        jobs: start to its finished training.
        scenes: folder of Scenes.
        count: images.
    """
    truth = COCO(str(scenes / 'coco' / 'annotations' / 'instances_val2017.json'))
    chosen = _images_with_several(truth, count)
    files = [scenes / 'coco' / 'val2017' / truth.imgs[i]['file_name'] for i in chosen]
    columns = {TRUTH: [_true_instances(truth, image_id) for image_id in chosen]}
    for start, job in jobs.items():
        model = init_detector(str(job.work_dir / 'config.py'), str(job.checkpoint), device='cpu')
        samples = inference_detector(model, [str(file) for file in files])
        columns[start] = [
            _best(sample.pred_instances, len(true.labels))
            for sample, true in zip(samples, columns[TRUTH], strict=True)
        ]
    draw_predictions(
        images=[_read(file) for file in files],
        columns=columns,
        path=path,
        title='Mask R-CNN on Scenes: as many of the best detections as there are objects',
        class_names=CLASSES,
    )


def draw_segmentation(path: Path, jobs: dict[str, Job], scenes: Path, count: int = 4) -> None:
    """Semantic maps of every start beside the truth.

    Args:
        path: PNG to write.
        jobs: start to its finished training.
        scenes: folder of Scenes.
        count: images.
    """
    folder = scenes / 'ade'
    files = sorted((folder / 'images' / 'validation').glob('*.jpg'))[:: len(CLASSES) + 1][:count]
    maps = [
        cv2.imread(str(folder / 'annotations' / 'validation' / f'{file.stem}.png'), -1)
        for file in files
    ]
    # ADE20K's 0 is unlabelled and 1 the first class, background; mmseg's first class is 0.
    columns = {TRUTH: [m.astype(np.int64) - 1 for m in maps]}
    for start, job in jobs.items():
        model = init_model(str(job.work_dir / 'config.py'), str(job.checkpoint), device='cpu')
        samples = inference_model(model, [str(file) for file in files])
        columns[start] = [sample.pred_sem_seg.data[0].numpy() for sample in samples]
    draw_predictions(
        images=[_read(file) for file in files],
        columns=columns,
        path=path,
        title='UperNet on Scenes',
        class_names=('background', *CLASSES),
    )


def _read(file: Path) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])


def _images_with_several(truth: COCO, count: int) -> list[int]:
    """Ids of images with two objects or more, each of another class than those before."""
    chosen: list[int] = []
    seen: set[int] = set()
    for image_id in truth.getImgIds():
        found = truth.loadAnns(truth.getAnnIds(image_id))
        classes = {annotation['category_id'] for annotation in found}
        if len(found) > 1 and not classes & seen and len(chosen) < count:
            chosen.append(image_id)
            seen |= classes
    return chosen


def _true_instances(truth: COCO, image_id: int) -> InstanceData:
    found = truth.loadAnns(truth.getAnnIds(image_id))
    boxes = np.array([annotation['bbox'] for annotation in found], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return InstanceData(
        bboxes=boxes,
        masks=np.stack([truth.annToMask(annotation) for annotation in found]).astype(bool),
        labels=np.array([annotation['category_id'] - 1 for annotation in found]),
    )


def _best(found: InstanceData, count: int) -> InstanceData:
    """The detections of the highest scores; after a short training a threshold would hide all."""
    return found[found.scores.argsort(descending=True)[:count]]
