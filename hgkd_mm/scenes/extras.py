"""Pictures that a detection data set needs and Scenes lack: empty ones and crowds."""

from dataclasses import replace

import cv2
import numpy as np

from .layer import Layer, place_object
from .recipes import CLASSES
from .renderer import GAP, SUPERSAMPLING, Scene, paint, random_stream, seen_well, truth

# Keeps the random numbers apart from those of the ordinary scenes.
_EXTRA_STREAM = 1
_MEMBER_SHARE_OF_CELL = 0.35
_BESIDE_SHARE = (0.06, 0.18)
_MAX_BESIDE = 2
_MIN_VISIBLE = 0.5


def render_extra(split: str, index: int, *, seed: int = 0, size: int = 128) -> Scene:
    """Renders one extra picture; arguments as for `render_scene`.

    Even indices are empty: a background and no object. Odd ones hold a flock of 12 to 24 objects
    of one class, which is the crowd, and up to two ordinary objects of other classes.
    """
    rng = random_stream(seed, split, index, _EXTRA_STREAM)
    layers, owners = _compose(size * SUPERSAMPLING, rng) if index % 2 else ([], [])
    image = paint(layers, size, rng)
    instances, instance_map = truth(layers, owners, size)
    reach = 2 * round(size * 0.05) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    outlined = cv2.morphologyEx((instance_map == 1).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    instance_map[(outlined > 0) & (instance_map == 0)] = GAP
    return Scene(image=image, instances=instances, instance_map=instance_map, crowd=bool(layers))


def _compose(canvas: int, rng: np.random.Generator) -> tuple[list[Layer], list[int]]:
    """Layers from back to front and whose they are: 1 for the flock, then one each."""
    label = int(rng.integers(len(CLASSES)))
    others = [other for other in range(len(CLASSES)) if other != label]
    layers = _flock(label, canvas, rng)
    owners = [1] * len(layers)
    for _ in range(1 + rng.integers(_MAX_BESIDE)):
        other, share = others[rng.integers(len(others))], rng.uniform(*_BESIDE_SHARE)
        beside = place_object(other, canvas, rng, share=share)
        place = len(layers) if rng.random() < 0.7 else 0
        proposal = [*layers[:place], beside, *layers[place:]]
        whose = [*owners[:place], max(owners) + 1, *owners[place:]]
        if seen_well(proposal, whose, canvas, dict.fromkeys(whose, _MIN_VISIBLE)):
            layers, owners = proposal, whose
    return layers, owners


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
