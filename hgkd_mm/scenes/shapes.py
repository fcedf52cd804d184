"""Outlines and parts: what the objects of Scenes are drawn from.

Coordinates are in object units: x to the right, y down, an object spans about [-1, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

PAINTS = ('skin', 'trim', 'light', 'dark', 'glass')


@dataclass(frozen=True, kw_only=True)
class Part:
    """One painted piece of an object.

    Where an even number of its outlines overlap there is a hole, which is how a ring is made.
    """

    outlines: tuple[np.ndarray, ...]  # closed, each (N, 2) float64
    paint: str = 'skin'  # which of the object's surfaces covers it, one of `PAINTS`
    relief: float = 1.0  # height over what it lies on, of the object's largest; 0 is flat


def part(*outlines: np.ndarray, paint: str = 'skin', relief: float = 1.0) -> Part:
    """Short for `Part` in the recipes."""
    return Part(outlines=outlines, paint=paint, relief=relief)


def ellipse(
    cx: float, cy: float, rx: float, ry: float, *, angle: float = 0.0, points: int = 36
) -> np.ndarray:
    """Outline of an ellipse with half axes ``rx``, ``ry``, turned by ``angle`` radians."""
    t = np.linspace(0.0, 2 * np.pi, points, endpoint=False)
    outline = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return turn(outline, angle) + (cx, cy)


def corners(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Corners of an outline from their coordinates."""
    return list(zip(x, y, strict=True))


def polygon(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Outline through the given corners."""
    return np.asarray(points, dtype=np.float64)


def blob(points: Sequence[tuple[float, float]], *, rounds: int = 3) -> np.ndarray:
    """Smooth outline that the given corners pull on (Chaikin's corner cutting)."""
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(rounds):
        following = np.roll(outline, -1, axis=0)
        cut = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1)
        outline = cut.reshape(-1, 2)
    return outline


def box(x0: float, y0: float, x1: float, y1: float, *, radius: float = 0.0) -> np.ndarray:
    """Outline of an upright rectangle with rounded corners."""
    if radius <= 0:
        return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    t = np.linspace(0.0, np.pi / 2, 6)
    centers = [
        (x1 - radius, y1 - radius, 0.0),
        (x0 + radius, y1 - radius, 0.5),
        (x0 + radius, y0 + radius, 1.0),
        (x1 - radius, y0 + radius, 1.5),
    ]
    arcs = [
        np.stack([cx + radius * np.cos(t + q * np.pi), cy + radius * np.sin(t + q * np.pi)], 1)
        for cx, cy, q in centers
    ]
    return np.concatenate(arcs)


def stroke(points: Sequence[tuple[float, float]], width: float) -> np.ndarray:
    """Outline of a line of the given width along the points."""
    line = np.asarray(points, dtype=np.float64)
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal *= 0.5 * width / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return np.concatenate([line + normal, (line - normal)[::-1]])


def mirror(outline: np.ndarray) -> np.ndarray:
    """The outline seen in a mirror on the y axis."""
    return outline * (-1.0, 1.0)


def turn(outline: np.ndarray, angle: float) -> np.ndarray:
    """The outline turned about the origin by ``angle`` radians (clockwise, since y is down)."""
    c, s = np.cos(angle), np.sin(angle)
    return outline @ np.array([[c, s], [-s, c]])


def normalize(parts: Sequence[Part]) -> list[Part]:
    """The parts shifted and scaled together: bounding box centered, longer half side 1."""
    points = np.concatenate([outline for part in parts for outline in part.outlines])
    low, high = points.min(axis=0), points.max(axis=0)
    center, half = (low + high) / 2, (high - low).max() / 2
    return [
        replace(part, outlines=tuple((outline - center) / half for outline in part.outlines))
        for part in parts
    ]
