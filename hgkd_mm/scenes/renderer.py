"""Pictures of Scenes and their truth, each made from (seed, split, index) alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .layer import Layer, Light, paint_layer, place_object
from .recipes import CLASSES
from .surfaces import fractal_noise, paint_background

SPLITS = ('train', 'val')
SUPERSAMPLING = 2
JPEG_QUALITY = 92
# In an instance map: between the members of a crowd, where an annotator outlines the whole.
GAP = 255

MAIN_SHARE = (0.28, 0.55)
CLUTTER_SHARE = (0.03, 0.07)
MAX_CLUTTER = 2
MIN_VISIBLE_MAIN = 0.65
MIN_VISIBLE_CLUTTER = 0.3


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object of a scene."""

    label: int  # index into `CLASSES`
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of what is visible, upper bounds exclusive
    area: int  # visible pixels
    visibility: float  # visible share of the object's pixels within the frame
    main: bool  # whether it gives the image its label


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture with its truth."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    instances: tuple[Instance, ...]  # the i-th has the number i + 1 in the map
    instance_map: np.ndarray  # (H, W) uint8, 0 where there is no object
    crowd: bool = False  # whether the first instance is one; `GAP` is between its members

    @property
    def jpeg(self) -> bytes:
        """The image as it is written."""
        bgr = np.ascontiguousarray(self.image[..., ::-1])
        return cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def render_scene(split: str, index: int, *, seed: int = 0, size: int = 128) -> Scene:
    """Renders one scene, always the same for (seed, split, index).

    The main object is of class ``index % 12``, so that every run of twelve images is balanced.

    Args:
        split: One of `SPLITS`.
        index: From 0.
        seed: Seed of the whole data set.
        size: Side of the square picture in pixels; shapes and textures scale.
    """
    rng = random_stream(seed, split, index)
    layers, main = compose(index % len(CLASSES), size * SUPERSAMPLING, rng)
    image = paint(layers, size, rng)
    instances, instance_map = truth(layers, range(1, len(layers) + 1), size, main=main)
    return Scene(image=image, instances=instances, instance_map=instance_map)


def random_stream(seed: int, split: str, index: int, *suffix: int) -> np.random.Generator:
    """The source of all that is random in one picture."""
    return np.random.default_rng([seed, SPLITS.index(split), index, *suffix])


def compose(label: int, canvas: int, rng: np.random.Generator) -> tuple[list[Layer], int]:
    """Layers from back to front, and the number of the main one, from 1."""
    layers, main = [place_object(label, canvas, rng, share=rng.uniform(*MAIN_SHARE))], 1
    others = [other for other in range(len(CLASSES)) if other != label]
    for _ in range(rng.integers(MAX_CLUTTER + 1)):
        other, share = others[rng.integers(len(others))], rng.uniform(*CLUTTER_SHARE)
        clutter = place_object(other, canvas, rng, share=share, tilt=45)
        in_front = rng.random() < 0.4
        proposal = [*layers, clutter] if in_front else [clutter, *layers]
        moved = main if in_front else main + 1
        numbers = range(1, len(proposal) + 1)
        least = dict.fromkeys(numbers, MIN_VISIBLE_CLUTTER) | {moved: MIN_VISIBLE_MAIN}
        if seen_well(proposal, numbers, canvas, least):
            layers, main = proposal, moved
    return layers, main


def truth(
    layers: list[Layer], owners: Sequence[int], size: int, *, main: int = 0
) -> tuple[tuple[Instance, ...], np.ndarray]:
    """The instances and their map.

    Args:
        layers: From back to front.
        owners: Number of the object that each layer belongs to, from 1.
        size: Side of the picture in pixels.
        main: Number of the object that gives the image its label.
    """
    order, whole = stack_up(layers, owners, size * SUPERSAMPLING)
    # At each pixel the number that covers most of it.
    coverage = [
        cv2.resize((order == n).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for n in range(len(whole) + 1)
    ]
    instance_map = np.stack(coverage).argmax(axis=0).astype(np.uint8)
    labels = {owner: layer.label for owner, layer in zip(owners, layers, strict=True)}
    instances = [
        Instance(
            label=labels[number],
            box=bounding_box(instance_map == number),
            area=int((instance_map == number).sum()),
            visibility=round(int((order == number).sum()) / whole[number], 4),
            main=number == main,
        )
        for number in sorted(labels)
    ]
    return tuple(instances), instance_map


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) around a mask, upper bounds exclusive."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def paint(layers: list[Layer], size: int, rng: np.random.Generator) -> np.ndarray:
    """The picture of layers from back to front: (size, size, 3) uint8 RGB."""
    light = Light.random(rng)
    canvas = paint_background(size * SUPERSAMPLING, rng)
    for layer in layers:
        paint_layer(canvas, layer, light, rng)
    return photograph(canvas, size, rng)


def stack_up(
    layers: list[Layer], owners: Iterable[int], canvas: int
) -> tuple[np.ndarray, dict[int, int]]:
    """Which object is seen where, and how large each would be with nothing in front of it.

    Returns:
        (canvas, canvas) uint8, 0 where there is no object; pixels of each whole object.
    """
    order = np.zeros((canvas, canvas), np.uint8)
    whole: dict[int, np.ndarray] = {}
    for layer, owner in zip(layers, owners, strict=True):
        mask = layer.on_canvas(canvas)
        order[mask] = owner
        whole[owner] = whole[owner] | mask if owner in whole else mask
    return order, {owner: int(mask.sum()) for owner, mask in whole.items()}


def seen_well(
    layers: list[Layer], owners: Iterable[int], canvas: int, least: dict[int, float]
) -> bool:
    """Whether the least share of every object's pixels, by its number, is visible."""
    order, whole = stack_up(layers, owners, canvas)
    return all((order == n).sum() >= least[n] * pixels for n, pixels in whole.items())


def photograph(canvas: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Lens, exposure and sensor: (3, H, W) float32 RGB, about [0, 1], to (size, size, 3) uint8."""
    rows = np.ascontiguousarray(canvas.transpose(1, 2, 0))
    image = cv2.resize(rows, (size, size), interpolation=cv2.INTER_AREA)
    unevenness = fractal_noise(image.shape[:2], rng, base=2, octaves=2)[..., None]
    ramp = np.linspace(-1, 1, size, dtype=np.float32) * rng.uniform(-0.2, 0.2)
    exposure = rng.uniform(0.75, 1.2) * rng.uniform(0.88, 1.12, 3)
    image = image * (1 + ramp[None, :, None]) * (0.85 + 0.4 * unevenness)
    image = np.clip(image * exposure.astype(np.float32), 0, 1) ** rng.uniform(0.8, 1.25)
    contrast = np.float32(rng.uniform(0.75, 1.1))
    image = 0.5 + contrast * (image - 0.5)
    sigma = rng.uniform(0.0, 0.7) * size / 128
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(rng.uniform(0.0, 0.012)) * noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
