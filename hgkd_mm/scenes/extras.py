"""Pictures that a detection data set needs and Scenes lack: empty ones and crowds."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .backgrounds import paint_background
from .layer import Layer, Light, paint_layer, place_object
from .objects import CLASSES
from .renderer import SUPERSAMPLING, SceneRenderer, most_covering, photograph, scene_stream

# In an instance map: between the members of a flock, where an annotator outlines the whole.
GAP = 255
STREAM = 1
MEMBER_SHARE_OF_CELL = 0.35
BESIDE_SHARE = (0.06, 0.18)
MAX_BESIDE = 2
MIN_VISIBLE_BESIDE = 0.5
MIN_VISIBLE_FLOCK = 0.5


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


class ExtraRenderer:
    """Renders the extra pictures, always the same for (seed, split, index).

    Even indices are empty: a background and no object. Odd ones hold a flock of 12 to 24 objects
    of one class and up to `MAX_BESIDE` ordinary objects of other classes. Their random streams are
    not those of `SceneRenderer`, whose pictures therefore stay as they are.

    Args:
        seed: Seed of the whole data set.
        size: Side of the square pictures in pixels, at least 32.

    Raises:
        ValueError: The size is below 32 pixels or the seed is negative.
    """

    def __init__(self, *, seed: int = 0, size: int = 128) -> None:
        SceneRenderer(seed=seed, size=size)  # refuses bad values
        self.seed = seed
        self.size = size

    def render(self, split: str, index: int) -> ExtraScene:
        """Renders one picture.

        Args:
            split: One of `SPLITS`.
            index: Number of the extra picture in its split, from 0.

        Raises:
            ValueError: The split is unknown or the index is negative.
        """
        rng = scene_stream(self.seed, split, index, STREAM)
        canvas = self.size * SUPERSAMPLING
        layers, owners = self._compose(canvas, rng) if index % 2 else ([], [])
        light = Light.random(rng)
        image = paint_background(canvas, rng)
        for layer in layers:
            paint_layer(image, layer, light, rng)
        labels = {owner: layer.label for owner, layer in zip(owners, layers, strict=True)}
        return ExtraScene(
            image=photograph(image, self.size, rng),
            labels=tuple(labels[owner] for owner in sorted(labels)),
            crowds=tuple(owner == 1 for owner in sorted(labels)),
            instance_map=self._truth(layers, owners),
        )

    def _compose(self, canvas: int, rng: np.random.Generator) -> tuple[list[Layer], list[int]]:
        """Layers from back to front and whose they are: 1 for the flock, then one each."""
        label = int(rng.integers(len(CLASSES)))
        others = [other for other in range(len(CLASSES)) if other != label]
        layers = _flock(label, canvas, rng)
        owners = [1] * len(layers)
        for _ in range(1 + rng.integers(MAX_BESIDE)):
            other = others[rng.integers(len(others))]
            beside = place_object(other, canvas, rng, share=rng.uniform(*BESIDE_SHARE))
            place = len(layers) if rng.random() < 0.7 else 0
            proposal = [*layers[:place], beside, *layers[place:]]
            whose = [*owners[:place], max(owners) + 1, *owners[place:]]
            if _seen_well(proposal, whose, canvas):
                layers, owners = proposal, whose
        return layers, owners

    def _truth(self, layers: list[Layer], owners: list[int]) -> np.ndarray:
        canvas = self.size * SUPERSAMPLING
        order = np.zeros((canvas, canvas), np.uint8)
        for layer, owner in zip(layers, owners, strict=True):
            order[layer.on_canvas(canvas)] = owner
        instance_map = most_covering(order, max(owners, default=0), self.size)
        reach = 2 * round(self.size * 0.05) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        flock = (instance_map == 1).astype(np.uint8)
        outlined = cv2.morphologyEx(flock, cv2.MORPH_CLOSE, kernel)
        instance_map[(outlined > 0) & (instance_map == 0)] = GAP
        return instance_map


def _flock(label: int, canvas: int, rng: np.random.Generator) -> list[Layer]:
    """Small objects of one class on a jittered grid, all of them within the canvas."""
    grid = np.array([rng.integers(4, 7), rng.integers(3, 5)])
    extent = canvas * np.array([rng.uniform(0.55, 0.9), rng.uniform(0.35, 0.6)])
    corner = rng.uniform(0, 1, 2) * (canvas - extent)
    cell = extent / grid
    share = MEMBER_SHARE_OF_CELL * cell.prod() / canvas**2
    members = []
    for row in range(grid[1]):
        for column in range(grid[0]):
            wanted = corner + cell * ((column, row) + rng.uniform(0.2, 0.8, 2))
            member = _whole(label, canvas, rng, share=share * rng.uniform(0.7, 1.2))
            members.append(_moved(member, wanted, canvas))
    return members


def _whole(label: int, canvas: int, rng: np.random.Generator, *, share: float) -> Layer:
    """An object that the canvas' edge does not cut."""
    while True:
        layer = place_object(label, canvas, rng, share=share)
        height, width = layer.silhouette.shape
        x, y = layer.origin
        if x > 0 and y > 0 and x + width < canvas and y + height < canvas:
            return layer


def _moved(layer: Layer, centre: np.ndarray, canvas: int) -> Layer:
    """The object with its centre about there, still within the canvas."""
    height, width = layer.silhouette.shape
    wanted = np.round(np.array(layer.origin) + centre - layer.centre).astype(int)
    origin = np.clip(wanted, 0, (canvas - width, canvas - height))
    shift = origin - layer.origin
    return replace(layer, origin=(int(origin[0]), int(origin[1])), centre=layer.centre + shift)


def _seen_well(layers: list[Layer], owners: list[int], canvas: int) -> bool:
    """Whether the flock as a whole and every object beside it stay visible enough."""
    order = np.zeros((canvas, canvas), np.uint8)
    whole = {owner: np.zeros((canvas, canvas), bool) for owner in owners}
    for layer, owner in zip(layers, owners, strict=True):
        mask = layer.on_canvas(canvas)
        order[mask] = owner
        whole[owner] |= mask
    least = {owner: MIN_VISIBLE_FLOCK if owner == 1 else MIN_VISIBLE_BESIDE for owner in owners}
    return all((order == n).sum() >= least[n] * mask.sum() for n, mask in whole.items())
