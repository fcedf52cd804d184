"""Scenes: a picture and its truth from (seed, split, index)."""

from dataclasses import dataclass

import cv2
import numpy as np

from .backgrounds import paint_background
from .layer import Layer, Light, paint_layer, place_object
from .objects import CLASSES
from .textures import fractal_noise

SPLITS = ('train', 'val', 'test')
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


class SceneRenderer:
    """Renders Scenes, each picture alone and always the same for (seed, split, index).

    The label is ``index % 12``, so that every run of twelve images is balanced.

    Args:
        seed: Seed of the whole data set.
        size: Side of the square pictures in pixels, at least 32; shapes and textures scale.

    Raises:
        ValueError: The size is below 32 pixels or the seed is negative.
    """

    def __init__(self, *, seed: int = 0, size: int = 128) -> None:
        if size < 32:
            raise ValueError(f'Scenes need size >= 32 pixels, got size={size}.')
        if seed < 0:
            raise ValueError(f'Scenes need seed >= 0, got seed={seed}.')
        self.seed = seed
        self.size = size

    def render(self, split: str, index: int) -> Scene:
        """Renders one scene.

        Args:
            split: One of `SPLITS`; the same index differs between splits.
            index: Number of the image in its split, from 0.

        Returns:
            The picture and its truth.

        Raises:
            ValueError: The split is unknown or the index is negative.
        """
        rng = scene_stream(self.seed, split, index)
        label = index % len(CLASSES)
        canvas = self.size * SUPERSAMPLING
        layers, main = self._compose(label, canvas, rng)
        light = Light.random(rng)
        image = paint_background(canvas, rng)
        for layer in layers:
            paint_layer(image, layer, light, rng)
        image = photograph(image, self.size, rng)
        instances, instance_map = self._truth(layers, main)
        semantic = np.array([0] + [instance.label + 1 for instance in instances], np.uint8)
        return Scene(
            image=image, label=label, instances=instances, instance_map=instance_map,
            semantic_map=semantic[instance_map],
        )  # fmt: skip

    def _compose(
        self, label: int, canvas: int, rng: np.random.Generator
    ) -> tuple[list[Layer], Layer]:
        """Layers from back to front, and the main one among them."""
        main = place_object(label, canvas, rng, share=rng.uniform(*MAIN_SHARE))
        others = [other for other in range(len(CLASSES)) if other != label]
        stack = [main]
        for _ in range(rng.integers(MAX_CLUTTER + 1)):
            other = others[rng.integers(len(others))]
            clutter = place_object(other, canvas, rng, share=rng.uniform(*CLUTTER_SHARE), tilt=45)
            in_front = rng.random() < 0.4
            proposal = [*stack, clutter] if in_front else [clutter, *stack]
            if self._seen_well(proposal, main, canvas):
                stack = proposal
        return stack, main

    @staticmethod
    def _seen_well(stack: list[Layer], main: Layer, canvas: int) -> bool:
        """Whether every object of the stack (from back to front) stays visible enough."""
        covered = np.zeros((canvas, canvas), bool)
        for layer in reversed(stack):
            mask = layer.on_canvas(canvas)
            least = MIN_VISIBLE_MAIN if layer is main else MIN_VISIBLE_CLUTTER
            if (mask & ~covered).sum() < least * mask.sum():
                return False
            covered |= mask
        return True

    def _truth(self, layers: list[Layer], main: Layer) -> tuple[tuple[Instance, ...], np.ndarray]:
        """Instances and their map: at each pixel the object that covers most of it."""
        canvas = self.size * SUPERSAMPLING
        order = np.zeros((canvas, canvas), np.uint8)
        whole = []
        for number, layer in enumerate(layers, 1):
            mask = layer.on_canvas(canvas)
            order[mask] = number
            whole.append(int(mask.sum()))
        instance_map = most_covering(order, len(layers), self.size)
        instances = []
        for number, layer in enumerate(layers, 1):
            rows, columns = np.nonzero(instance_map == number)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            seen = int((order == number).sum())
            instances.append(
                Instance(
                    label=layer.label,
                    box=tuple(int(b) for b in box),
                    area=len(rows),
                    visibility=round(seen / whole[number - 1], 4),
                    main=layer is main,
                )  # fmt: skip
            )
        return tuple(instances), instance_map


def scene_stream(seed: int, split: str, index: int, *suffix: int) -> np.random.Generator:
    """Where all that is random in one picture comes from.

    Args:
        seed: Seed of the data set.
        split: One of `SPLITS`.
        index: Number of the picture in its split.
        *suffix: Not zero; tells the streams of other kinds of pictures from those of `Scene`.

    Raises:
        ValueError: The split is unknown or the index is negative.
    """
    if split not in SPLITS:
        raise ValueError(f'Scenes have the splits {", ".join(SPLITS)}, got {split!r}.')
    if index < 0:
        raise ValueError(f'Scenes are numbered from 0, got index={index}.')
    return np.random.default_rng([seed, SPLITS.index(split), index, *suffix])


def most_covering(order: np.ndarray, count: int, size: int) -> np.ndarray:
    """Which object covers most of each pixel.

    Args:
        order: (canvas, canvas) uint8, the object seen at each sample, 0 where there is none.
        count: Largest number of an object.
        size: Side of the picture in pixels.

    Returns:
        (size, size) uint8, numbers as in `order`.
    """
    coverage = np.stack(
        [
            cv2.resize((order == n).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
            for n in range(count + 1)
        ]
    )
    return coverage.argmax(axis=0).astype(np.uint8)


def photograph(canvas: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Lens, exposure and sensor.

    Args:
        canvas: (3, size * SUPERSAMPLING, size * SUPERSAMPLING) float32 RGB, about [0, 1].
        size: Side of the picture in pixels.
        rng: Source of the camera's settings and noise.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    image = cv2.resize(
        np.ascontiguousarray(canvas.transpose(1, 2, 0)), (size, size),
        interpolation=cv2.INTER_AREA,
    )  # fmt: skip
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
