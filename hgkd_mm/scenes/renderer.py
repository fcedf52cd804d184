"""Pictures of Scenes and their truth, each made from (seed, split, index) alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .layer import Layer, Light, paint_layer, place_object
from .recipes import CLASSES
from .surfaces import fractal_noise, paint_background

SPLITS = ('train', 'val', 'test')
SUPERSAMPLING = 2
# In an instance map: between the members of a flock, where an annotator outlines the whole.
GAP = 255

MAIN_SHARE = (0.28, 0.55)
CLUTTER_SHARE = (0.03, 0.07)
MAX_CLUTTER = 2
MIN_VISIBLE_MAIN = 0.65
MIN_VISIBLE_CLUTTER = 0.3

_EXTRA_STREAM = 1
_MEMBER_SHARE_OF_CELL = 0.35
_BESIDE_SHARE = (0.06, 0.18)
_MAX_BESIDE = 2
_MIN_VISIBLE_EXTRA = 0.5


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


@dataclass(frozen=True, kw_only=True)
class ExtraScene:
    """An empty picture, or a flock of many small objects with ordinary ones beside it.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: Index into `CLASSES` of each number in ``instance_map``, from 1; none if empty.
        crowds: Whether it is a flock, one for each label.
        instance_map: (H, W) uint8, 0 where there is no object, `GAP` within a flock between its
            members.
    """

    image: np.ndarray
    labels: tuple[int, ...]
    crowds: tuple[bool, ...]
    instance_map: np.ndarray


class Renderer:
    """What ordinary and extra pictures share.

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
        self.canvas = size * SUPERSAMPLING

    def _stream(self, split: str, index: int, *suffix: int) -> np.random.Generator:
        """The source of all that is random in one picture."""
        if split not in SPLITS:
            raise ValueError(f'Scenes have the splits {", ".join(SPLITS)}, got {split!r}.')
        if index < 0:
            raise ValueError(f'Scenes are numbered from 0, got index={index}.')
        return np.random.default_rng([self.seed, SPLITS.index(split), index, *suffix])

    def _paint(self, layers: list[Layer], rng: np.random.Generator) -> np.ndarray:
        """The picture of layers from back to front: (size, size, 3) uint8 RGB."""
        light = Light.random(rng)
        image = paint_background(self.canvas, rng)
        for layer in layers:
            paint_layer(image, layer, light, rng)
        return photograph(image, self.size, rng)

    def _instance_map(self, order: np.ndarray, count: int) -> np.ndarray:
        """At each pixel the number, up to ``count``, that covers most of it: (size, size) uint8."""
        size = (self.size, self.size)
        coverage = [
            cv2.resize((order == n).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for n in range(count + 1)
        ]
        return np.stack(coverage).argmax(axis=0).astype(np.uint8)


class SceneRenderer(Renderer):
    """Renders Scenes, each picture alone and always the same for (seed, split, index).

    The label is ``index % 12``, so that every run of twelve images is balanced.
    """

    def render(self, split: str, index: int) -> Scene:
        """Renders one scene of a split, one of `SPLITS`; indices count from 0.

        Raises:
            ValueError: The split is unknown or the index is negative.
        """
        rng = self._stream(split, index)
        label = index % len(CLASSES)
        layers, main = self._compose(label, rng)
        image = self._paint(layers, rng)
        instances, instance_map = self._truth(layers, main)
        semantic = np.array([0] + [instance.label + 1 for instance in instances], np.uint8)
        return Scene(
            image=image,
            label=label,
            instances=instances,
            instance_map=instance_map,
            semantic_map=semantic[instance_map],
        )

    def _compose(self, label: int, rng: np.random.Generator) -> tuple[list[Layer], Layer]:
        """Layers from back to front, and the main one among them."""
        main = place_object(label, self.canvas, rng, share=rng.uniform(*MAIN_SHARE))
        others = [other for other in range(len(CLASSES)) if other != label]
        stack = [main]
        for _ in range(rng.integers(MAX_CLUTTER + 1)):
            other, share = others[rng.integers(len(others))], rng.uniform(*CLUTTER_SHARE)
            clutter = place_object(other, self.canvas, rng, share=share, tilt=45)
            in_front = rng.random() < 0.4
            proposal = [*stack, clutter] if in_front else [clutter, *stack]
            least = [MIN_VISIBLE_MAIN if x is main else MIN_VISIBLE_CLUTTER for x in proposal]
            order, whole = stack_up(proposal, range(1, len(proposal) + 1), self.canvas)
            if _seen_well(order, whole, dict(enumerate(least, 1))):
                stack = proposal
        return stack, main

    def _truth(self, layers: list[Layer], main: Layer) -> tuple[tuple[Instance, ...], np.ndarray]:
        order, whole = stack_up(layers, range(1, len(layers) + 1), self.canvas)
        instance_map = self._instance_map(order, len(layers))
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


class ExtraRenderer(Renderer):
    """Renders pictures that a detection data set needs and Scenes lack: empty ones and crowds.

    Even indices are empty: a background and no object. Odd ones hold a flock of 12 to 24 objects
    of one class and one or two ordinary objects of other classes. Their random streams are not
    those of `SceneRenderer`, whose pictures therefore stay as they are.
    """

    def render(self, split: str, index: int) -> ExtraScene:
        """Renders one extra picture of a split; indices count from 0.

        Raises:
            ValueError: The split is unknown or the index is negative.
        """
        rng = self._stream(split, index, _EXTRA_STREAM)
        layers, owners = self._compose(rng) if index % 2 else ([], [])
        labels = {owner: layer.label for owner, layer in zip(owners, layers, strict=True)}
        return ExtraScene(
            image=self._paint(layers, rng),
            labels=tuple(labels[owner] for owner in sorted(labels)),
            crowds=tuple(owner == 1 for owner in sorted(labels)),
            instance_map=self._truth(layers, owners),
        )

    def _compose(self, rng: np.random.Generator) -> tuple[list[Layer], list[int]]:
        """Layers from back to front and whose they are: 1 for the flock, then one each."""
        label = int(rng.integers(len(CLASSES)))
        others = [other for other in range(len(CLASSES)) if other != label]
        layers = _flock(label, self.canvas, rng)
        owners = [1] * len(layers)
        for _ in range(1 + rng.integers(_MAX_BESIDE)):
            other, share = others[rng.integers(len(others))], rng.uniform(*_BESIDE_SHARE)
            beside = place_object(other, self.canvas, rng, share=share)
            place = len(layers) if rng.random() < 0.7 else 0
            proposal = [*layers[:place], beside, *layers[place:]]
            whose = [*owners[:place], max(owners) + 1, *owners[place:]]
            order, whole = stack_up(proposal, whose, self.canvas)
            if _seen_well(order, whole, dict.fromkeys(whole, _MIN_VISIBLE_EXTRA)):
                layers, owners = proposal, whose
        return layers, owners

    def _truth(self, layers: list[Layer], owners: list[int]) -> np.ndarray:
        order, _ = stack_up(layers, owners, self.canvas)
        instance_map = self._instance_map(order, max(owners, default=0))
        reach = 2 * round(self.size * 0.05) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        flock = (instance_map == 1).astype(np.uint8)
        outlined = cv2.morphologyEx(flock, cv2.MORPH_CLOSE, kernel)
        instance_map[(outlined > 0) & (instance_map == 0)] = GAP
        return instance_map


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


def _seen_well(order: np.ndarray, whole: dict[int, int], least: dict[int, float]) -> bool:
    """Whether so large a share of every object is visible."""
    return all((order == n).sum() >= least[n] * pixels for n, pixels in whole.items())


def _flock(label: int, canvas: int, rng: np.random.Generator) -> list[Layer]:
    """Small objects of one class on a jittered grid, all of them within the canvas."""
    grid = np.array([rng.integers(4, 7), rng.integers(3, 5)])
    extent = canvas * np.array([rng.uniform(0.55, 0.9), rng.uniform(0.35, 0.6)])
    corner = rng.uniform(0, 1, 2) * (canvas - extent)
    cell = extent / grid
    share = _MEMBER_SHARE_OF_CELL * cell.prod() / canvas**2
    members = []
    for row in range(grid[1]):
        for column in range(grid[0]):
            wanted = corner + cell * ((column, row) + rng.uniform(0.2, 0.8, 2))
            member = _uncut(label, canvas, rng, share=share * rng.uniform(0.7, 1.2))
            members.append(_moved(member, wanted, canvas))
    return members


def _uncut(label: int, canvas: int, rng: np.random.Generator, *, share: float) -> Layer:
    """An object that the canvas' edge does not cut."""
    while True:
        layer = place_object(label, canvas, rng, share=share)
        height, width = layer.silhouette.shape
        x, y = layer.origin
        if x > 0 and y > 0 and x + width < canvas and y + height < canvas:
            return layer


def _moved(layer: Layer, center: np.ndarray, canvas: int) -> Layer:
    """The object with its center about there, still within the canvas."""
    height, width = layer.silhouette.shape
    wanted = np.round(np.array(layer.origin) + center - layer.center).astype(int)
    origin = np.clip(wanted, 0, (canvas - width, canvas - height))
    shift = origin - layer.origin
    return replace(layer, origin=(int(origin[0]), int(origin[1])), center=layer.center + shift)


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
