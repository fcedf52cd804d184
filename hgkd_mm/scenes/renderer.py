"""Pictures of Scenes and their truth, each made from (seed, split, index) alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from .layer import Layer, Light, paint_layer, place_object
from .recipes import CLASSES
from .surfaces import fractal_noise, paint_background

SPLITS = ('train', 'val')
SUPERSAMPLING = 2

MAIN_SHARE = (0.28, 0.55)
CLUTTER_SHARE = (0.03, 0.07)
MAX_CLUTTER = 2
MIN_VISIBLE_MAIN = 0.65
MIN_VISIBLE_CLUTTER = 0.3


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object of a scene.

    Args:
        label: Index into `CLASSES`.
        box: (x0, y0, x1, y1) in pixels around what is visible, upper bounds exclusive.
        area: Visible pixels.
        visibility: Visible share of the object's pixels within the frame.
        main: Whether it gives the image its label.
    """

    label: int
    box: tuple[int, int, int, int]
    area: int
    visibility: float
    main: bool


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture with its truth.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: Index into `CLASSES` of the main object.
        instances: The objects; ``instances[i]`` has the number ``i + 1`` in ``instance_map``.
        instance_map: (H, W) uint8, 0 where there is no object.
        semantic_map: (H, W) uint8, 0 for background, label + 1 for objects.
    """

    image: np.ndarray
    label: int
    instances: tuple[Instance, ...]
    instance_map: np.ndarray
    semantic_map: np.ndarray


def render_scene(split: str, index: int, *, seed: int = 0, size: int = 128) -> Scene:
    """Renders one scene, always the same for (seed, split, index).

    The label is ``index % 12``, so that every run of twelve images is balanced.

    Args:
        split: One of `SPLITS`.
        index: From 0.
        seed: Seed of the whole data set.
        size: Side of the square picture in pixels; shapes and textures scale.
    """
    rng = random_stream(seed, split, index)
    label = index % len(CLASSES)
    layers, main = compose(label, size * SUPERSAMPLING, rng)
    image = paint(layers, size, rng)
    instances, instance_map = truth(layers, main, size)
    semantic = np.array([0] + [instance.label + 1 for instance in instances], np.uint8)
    return Scene(
        image=image,
        label=label,
        instances=instances,
        instance_map=instance_map,
        semantic_map=semantic[instance_map],
    )


def random_stream(seed: int, split: str, index: int, *suffix: int) -> np.random.Generator:
    """The source of all that is random in one picture."""
    return np.random.default_rng([seed, SPLITS.index(split), index, *suffix])


def compose(label: int, canvas: int, rng: np.random.Generator) -> tuple[list[Layer], Layer]:
    """Layers from back to front, and the main one among them."""
    main = place_object(label, canvas, rng, share=rng.uniform(*MAIN_SHARE))
    others = [other for other in range(len(CLASSES)) if other != label]
    layers = [main]
    for _ in range(rng.integers(MAX_CLUTTER + 1)):
        other, share = others[rng.integers(len(others))], rng.uniform(*CLUTTER_SHARE)
        clutter = place_object(other, canvas, rng, share=share, tilt=45)
        in_front = rng.random() < 0.4
        proposal = [*layers, clutter] if in_front else [clutter, *layers]
        least = [MIN_VISIBLE_MAIN if x is main else MIN_VISIBLE_CLUTTER for x in proposal]
        if seen_well(proposal, range(1, len(proposal) + 1), canvas, dict(enumerate(least, 1))):
            layers = proposal
    return layers, main


def truth(layers: list[Layer], main: Layer, size: int) -> tuple[tuple[Instance, ...], np.ndarray]:
    """The instances of layers from back to front, and their map."""
    order, whole = stack_up(layers, range(1, len(layers) + 1), size * SUPERSAMPLING)
    instance_map = shrink_map(order, size, len(layers))
    instances = []
    for number, layer in enumerate(layers, 1):
        rows, columns = np.nonzero(instance_map == number)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        instances.append(
            Instance(
                label=layer.label,
                box=tuple(int(b) for b in box),
                area=len(rows),
                visibility=round(int((order == number).sum()) / whole[number], 4),
                main=layer is main,
            )
        )
    return tuple(instances), instance_map


def paint(layers: list[Layer], size: int, rng: np.random.Generator) -> np.ndarray:
    """The picture of layers from back to front: (size, size, 3) uint8 RGB."""
    light = Light.random(rng)
    canvas = paint_background(size * SUPERSAMPLING, rng)
    for layer in layers:
        paint_layer(canvas, layer, light, rng)
    return photograph(canvas, size, rng)


def shrink_map(order: np.ndarray, size: int, count: int) -> np.ndarray:
    """At each pixel the number, up to ``count``, that covers most of it: (size, size) uint8."""
    coverage = [
        cv2.resize((order == n).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for n in range(count + 1)
    ]
    return np.stack(coverage).argmax(axis=0).astype(np.uint8)


def stack_up(
    layers: list[Layer], owners: Iterable[int], canvas: int
) -> tuple[np.ndarray, dict[int, int]]:
    """Which object is seen where, and how large each would be with nothing in front of it.

    Args:
        layers: From back to front.
        owners: Number of the object that each layer belongs to, from 1.
        canvas: Side in pixels.

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
