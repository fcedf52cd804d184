"""Detections and segmentations over images, next to the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from numpy.typing import NDArray
from torchvision.utils import draw_segmentation_masks

from .figure import ImageGrid, PictureColumn, draw_grid

Color = tuple[int, int, int]
Image = NDArray[np.uint8]
# Objects with bboxes (N, 4), masks (N, H, W), labels (N,) and, for detections, scores (N,); or an
# (H, W) map of class indices, of which others, such as -1 or 255, are not painted.
Prediction = InstanceData | NDArray[np.integer]

BACKGROUND = 'background'
_BACKGROUND_COLOR = (205, 205, 205)
_TILE = 2.2  # inches
_MIN_WIDTH = 512  # pixels, for boxes and letters
_MASK_ALPHA, _MAP_ALPHA = 0.5, 0.7


def draw_predictions(
    *,
    images: Sequence[Image],
    columns: Mapping[str, Sequence[Prediction]],
    path: str | Path,
    title: str,
    class_names: Sequence[str],
) -> Path:
    """Draws boxes, masks, names and scores of objects, or semantic maps, over images.

    Args:
        images: (H, W, 3) uint8 RGB each, of one size, one per row; they are the first column.
        columns: heading to the prediction or the truth for each image.
        path: file to write; its suffix names the format.
        title: line above it all.
        class_names: by label.
    """
    colors = class_colors(class_names)
    shown = [PictureColumn(title='image', pictures=np.stack(images))]
    present: set[int] = set()
    for name, predictions in columns.items():
        pictures = []
        for image, prediction in zip(images, predictions, strict=True):
            if isinstance(prediction, InstanceData):
                pictures.append(paint_instances(image, prediction, class_names, colors))
                present.update(np.asarray(prediction.labels).tolist())
            else:
                pictures.append(paint_semantic(image, prediction, colors))
                present.update(np.unique(prediction).tolist())
        shown.append(PictureColumn(title=name, pictures=np.stack(pictures)))
    legend = {class_names[i]: colors[i] for i in range(len(class_names)) if i in present}
    return draw_grid(ImageGrid(columns=shown, legend=legend), path, title=title, tile=_TILE)


def class_colors(class_names: Sequence[str]) -> list[Color]:
    """A color (R, G, B) for each class; light grey for one that is called 'background'.

    Classes keep their colors whether or not there is a background among them.
    """
    tab = matplotlib.colormaps['tab20'].colors
    # Strong colors first; without the greys.
    wheel = [c for half in (tab[::2], tab[1::2]) for i, c in enumerate(half) if i != 7]
    foreground = [name for name in class_names if name != BACKGROUND]
    if len(foreground) > len(wheel):
        hues = np.linspace(0, 1, len(foreground), endpoint=False)
        wheel = matplotlib.colormaps['hsv'](hues)[:, :3]
    chosen = (tuple(round(255 * float(channel)) for channel in color) for color in wheel)
    by_name = dict(zip(foreground, chosen, strict=False))
    return [by_name.get(name, _BACKGROUND_COLOR) for name in class_names]


def paint_instances(
    image: Image, objects: InstanceData, class_names: Sequence[str], colors: Sequence[Color]
) -> Image:
    """Masks, boxes, names and scores over an image, the best score on top.

    Returns:
        (s H, s W, 3) uint8, s a whole number that makes it wide enough for letters.
    """
    objects = objects.cpu().numpy()
    if 'scores' in objects:
        objects = objects[np.argsort(objects.scores, kind='stable')]
    chosen = [colors[label] for label in objects.labels]
    texts = [class_names[label] for label in objects.labels]
    if 'scores' in objects:
        texts = [f'{text} {score:.2f}' for text, score in zip(texts, objects.scores, strict=True)]
    (height, width), scale = image.shape[:2], -(-_MIN_WIDTH // image.shape[1])
    painted = _blend(image, objects.masks, chosen, _MASK_ALPHA)
    canvas = Visualizer(image=painted.repeat(scale, axis=0).repeat(scale, axis=1))
    if chosen:
        limits = np.array([width, height, width, height]) * scale - 1
        boxes = (objects.bboxes * scale).clip(0, limits)
        canvas.draw_bboxes(boxes, edge_colors=chosen, line_widths=2)
        canvas.draw_texts(
            texts,
            boxes[:, :2],
            font_sizes=round(width * scale / 34),
            colors=[_readable_on(color) for color in chosen],
            bboxes=[
                dict(facecolor=np.divide(color, 255), edgecolor='none', pad=1.5) for color in chosen
            ],
        )
    return canvas.get_image()


def paint_semantic(image: Image, labels: NDArray[np.integer], colors: Sequence[Color]) -> Image:
    """An (H, W) map of class indices over an (H, W, 3) image."""
    present = [label for label in np.unique(labels) if 0 <= label < len(colors)]
    masks = [labels == label for label in present]
    return _blend(image, masks, [colors[label] for label in present], _MAP_ALPHA)


def _blend(image: Image, masks: Sequence[NDArray], colors: Sequence[Color], alpha: float) -> Image:
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    # One by one: torchvision paints the overlap of masks in one call black.
    for mask, color in zip(masks, colors, strict=True):
        flags = torch.from_numpy(mask).bool()
        pixels = draw_segmentation_masks(pixels, flags, alpha=alpha, colors=[color])
    return pixels.permute(1, 2, 0).numpy()


def _readable_on(color: Color) -> str:
    """Black or white, by the color's luminance (ITU-R BT.601)."""
    return 'black' if np.dot(color, (0.299, 0.587, 0.114)) > 150 else 'white'
