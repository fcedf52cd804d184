"""What detectors and segmenters find in images, side by side with the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
import torch
from mmengine.visualization import Visualizer
from numpy.typing import NDArray
from torchvision.utils import draw_segmentation_masks

from .view import Pictures, View
from .view_figure import draw_view

Colour = tuple[int, int, int]
Image = NDArray[np.uint8]
T = TypeVar('T')

BACKGROUND = 'background'
_BACKGROUND_COLOUR = (205, 205, 205)
_TILE = 2.2  # inches
_LEAST_WIDTH = 512  # pixels that boxes and letters are drawn at
_MASK_ALPHA, _MAP_ALPHA = 0.5, 0.7


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Objects in one image, true or found.

    Attributes:
        boxes: (N, 4) left, top, right, bottom, in pixels.
        masks: (N, H, W) bool.
        labels: (N,) class indices.
        scores: (N,), or None for the truth.
    """

    boxes: NDArray[np.floating]
    masks: NDArray[np.bool_]
    labels: NDArray[np.integer]
    scores: NDArray[np.floating] | None = None


def draw_instances(
    *,
    images: Sequence[Image],
    columns: Mapping[str, Sequence[Instances]],
    path: str | Path,
    title: str,
    class_names: Sequence[str],
) -> Path:
    """Draws boxes, masks, names and scores over images.

    Args:
        images: (H, W, 3) uint8 RGB each, of one size, one a row.
        columns: heading to the objects in each image, in the order to draw them in; the images
            alone come first.
        path: file to write; its suffix names the format.
        title: line above it all.
        class_names: by label.

    Returns:
        The path.

    Raises:
        ValueError: the images or their numbers differ, or a label or a mask does not fit.
    """
    colours = class_colours(class_names)

    def paint(image: Image, found: Instances) -> Image:
        return paint_instances(image, found, class_names=class_names, colours=colours)

    present = {int(label) for found in columns.values() for one in found for label in one.labels}
    return _draw(images, columns, paint, path, title, _legend(class_names, colours, present))


def draw_semantic(
    *,
    images: Sequence[Image],
    columns: Mapping[str, Sequence[NDArray[np.integer]]],
    path: str | Path,
    title: str,
    class_names: Sequence[str],
) -> Path:
    """Draws semantic maps over images.

    Args:
        images: (H, W, 3) uint8 RGB each, of one size, one a row.
        columns: heading to a map (H, W) of class indices for each image, in the order to draw
            them in; the images alone come first. Other values, such as -1 or 255, are not
            painted.
        path: file to write; its suffix names the format.
        title: line above it all.
        class_names: by index.

    Returns:
        The path.

    Raises:
        ValueError: the images or their numbers differ, or a map has another size.
    """
    colours = class_colours(class_names)

    def paint(image: Image, labels: NDArray[np.integer]) -> Image:
        return paint_semantic(image, labels, colours=colours)

    present = {int(label) for maps in columns.values() for one in maps for label in np.unique(one)}
    return _draw(images, columns, paint, path, title, _legend(class_names, colours, present))


def class_colours(class_names: Sequence[str]) -> list[Colour]:
    """A colour (R, G, B) for each class; light grey for one that is called 'background'.

    Classes keep their colours whether or not there is a background among them.
    """
    wheel = matplotlib.colormaps['tab20'].colors
    # Strong ones first; without the greys.
    order = [i for parity in (0, 1) for i in range(parity, 20, 2) if i // 2 != 7]
    things = [name for name in class_names if name != BACKGROUND]
    if len(things) <= len(order):
        chosen = [wheel[i] for i in order[: len(things)]]
    else:
        hues = np.linspace(0, 1, len(things), endpoint=False)
        chosen = [matplotlib.colormaps['hsv'](hue)[:3] for hue in hues]
    by_name = {
        name: tuple(round(255 * channel) for channel in colour)
        for name, colour in zip(things, chosen, strict=True)
    }
    return [by_name.get(name, _BACKGROUND_COLOUR) for name in class_names]


def paint_instances(
    image: Image, found: Instances, *, class_names: Sequence[str], colours: Sequence[Colour]
) -> Image:
    """Masks, boxes, names and scores over an image, the best score on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: the objects.
        class_names: by label.
        colours: by label.

    Returns:
        (s H, s W, 3) uint8, s a whole number that makes it wide enough for letters.

    Raises:
        ValueError: a label has no name, or the masks are not (N, H, W).
    """
    count, (height, width) = len(found.labels), image.shape[:2]
    if found.masks.shape != (count, height, width):
        raise ValueError(
            f'{count} objects in an image of {height} x {width} px need masks of shape '
            f'{(count, height, width)}, got {found.masks.shape}.'
        )
    if count and not 0 <= found.labels.min() <= found.labels.max() < len(class_names):
        raise ValueError(
            f'Labels are 0 to {len(class_names) - 1}, by the number of class names, got '
            f'{sorted(set(found.labels.tolist()))}.'
        )
    scale = _scale(width)
    canvas = Visualizer(image=_enlarged(image, scale))
    order = np.arange(count) if found.scores is None else np.argsort(found.scores, kind='stable')
    if count:
        labels = found.labels[order].tolist()
        chosen = [colours[label] for label in labels]
        masks = np.stack([_enlarged(mask, scale) for mask in found.masks[order]])
        canvas.draw_binary_masks(masks, colors=chosen, alphas=_MASK_ALPHA)
        boxes = found.boxes[order] * scale
        boxes = boxes.clip(0, np.array([width, height, width, height]) * scale - 1)
        canvas.draw_bboxes(boxes, edge_colors=chosen, line_widths=2)
        texts = [class_names[label] for label in labels]
        if found.scores is not None:
            scores = found.scores[order].tolist()
            texts = [f'{text} {score:.2f}' for text, score in zip(texts, scores, strict=True)]
        canvas.draw_texts(
            texts,
            boxes[:, :2],
            font_sizes=round(width * scale / 34),
            colors=[_readable_on(colour) for colour in chosen],
            bboxes=[dict(facecolor=_unit(c), edgecolor='none', pad=1.5) for c in chosen],
        )
    return canvas.get_image()


def paint_semantic(
    image: Image, labels: NDArray[np.integer], *, colours: Sequence[Colour]
) -> Image:
    """A semantic map over an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) class indices; others are not painted.
        colours: by class.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the map is not (H, W).
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f'A semantic map of shape {labels.shape} does not fit an image of '
            f'{image.shape[0]} x {image.shape[1]} px.'
        )
    present = [int(label) for label in np.unique(labels) if 0 <= label < len(colours)]
    if not present:
        return image
    painted = draw_segmentation_masks(
        torch.from_numpy(image).permute(2, 0, 1),
        torch.stack([torch.from_numpy(labels == label) for label in present]),
        alpha=_MAP_ALPHA,
        colors=[colours[label] for label in present],
    )
    return painted.permute(1, 2, 0).numpy()


def _draw(
    images: Sequence[Image],
    columns: Mapping[str, Sequence[T]],
    paint: Callable[[Image, T], Image],
    path: str | Path,
    title: str,
    legend: dict[str, Colour],
) -> Path:
    for name, found in columns.items():
        if len(found) != len(images):
            raise ValueError(
                f"Column '{name}' is of {len(found)} images, but there are {len(images)}."
            )
    sizes = sorted({image.shape for image in images})
    if len(sizes) != 1:
        raise ValueError(f'One picture takes images of one size, got {sizes}: resize them before.')
    shown = [Pictures(group='', title='image', pictures=np.stack(images))]
    for name, found in columns.items():
        pairs = zip(images, found, strict=True)
        pictures = np.stack([paint(image, one) for image, one in pairs])
        shown.append(Pictures(group='', title=name, pictures=pictures))
    return draw_view(View(columns=shown, legend=legend), path, title=title, tile=_TILE)


def _legend(
    class_names: Sequence[str], colours: Sequence[Colour], present: set[int]
) -> dict[str, Colour]:
    return {class_names[i]: colours[i] for i in sorted(present) if 0 <= i < len(class_names)}


def _scale(width: int) -> int:
    return -(-_LEAST_WIDTH // width)


def _enlarged(array: NDArray, scale: int) -> NDArray:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def _readable_on(colour: Colour) -> str:
    """Black or white, by the colour's luminance (ITU-R BT.601)."""
    return 'black' if np.dot(colour, (0.299, 0.587, 0.114)) > 150 else 'white'


def _unit(colour: Colour) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)
