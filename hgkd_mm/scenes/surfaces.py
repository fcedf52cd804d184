"""Textures, the two-colored surfaces of objects that they make, and backgrounds."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Field = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

# Real classes tend to show certain surfaces too. 60 % of the objects do, so that texture tells
# something of the class and never all.
FAVORITES: dict[str, tuple[str, ...]] = {
    'boat': ('wood', 'stripes', 'plain'),
    'butterfly': ('dots', 'stripes', 'gradient'),
    'car': ('plain', 'gradient', 'stripes'),
    'cat': ('cloud', 'stripes', 'plain'),
    'fish': ('scales', 'stripes', 'gradient'),
    'flower': ('gradient', 'plain', 'cloud'),
    'house': ('brick', 'plain', 'wood'),
    'key': ('gradient', 'cloud', 'plain'),
    'mug': ('checks', 'dots', 'plain'),
    'mushroom': ('dots', 'cloud', 'plain'),
    'rocket': ('checks', 'stripes', 'plain'),
    'tree': ('cloud', 'scales', 'dots'),
}
FAVORITE_SHARE = 0.6
_BACKGROUNDS = (
    *('cloud', 'cloud', 'gradient', 'gradient'),
    *('stripes', 'brick', 'checks', 'wood', 'dots', 'grass'),
)
_HORIZON_SHARE = 0.4


def fractal_noise(
    shape: tuple[int, int], rng: np.random.Generator, *, base: int = 3, octaves: int = 5
) -> np.ndarray:
    """Noise with about a 1/f amplitude spectrum, as natural images have.

    Args:
        shape: (H, W).
        rng: Source of the noise.
        base: Cells across in the coarsest octave; each octave has twice as many.
        octaves: Number of octaves; those finer than the pixels are left out.

    Returns:
        (H, W) float32 in [0, 1], mean about 0.5.
    """
    height, width = shape
    total, weight, cells = np.zeros((base, base), np.float32), 0.8, base
    for octave in range(octaves):
        if octave > 0:
            weight, cells = 0.55 * weight, 2 * cells
            if cells > max(height, width):
                break
            total = cv2.resize(total, (cells, cells), interpolation=cv2.INTER_CUBIC)
        total += weight * (rng.random((cells, cells), dtype=np.float32) - 0.5)
    total = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 0.5, 0.0, 1.0)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)  # a tenth of the time of x % 1


def _staggered(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position within the cell of a lattice whose odd rows are shifted by half, each in [0, 1)."""
    return _fraction(u + 0.5 * np.floor(v)), _fraction(v)


def _wave(x: np.ndarray, sharpness: float) -> np.ndarray:
    return np.clip(0.5 + sharpness * np.sin(2 * np.pi * x), 0.0, 1.0)


def _plain(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full_like(u, 0.1)


def _gradient(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.5 + 0.7 * v, 0.0, 1.0)


def _cloud(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = fractal_noise(u.shape, rng, base=int(rng.integers(4, 9)))
    return np.clip(0.5 + 2.2 * (noise - 0.5), 0.0, 1.0)


def _stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _wave(u * rng.uniform(2.0, 4.5), 2.5)


def _checks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    f = rng.uniform(1.6, 3.2)
    return np.clip(0.5 + 4 * np.sin(2 * np.pi * f * u) * np.sin(2 * np.pi * f * v), 0.0, 1.0)


def _dots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    f, r = rng.uniform(2.5, 5.0), rng.uniform(0.25, 0.36)
    x, y = _staggered(u * f, v * f)
    return np.clip((r - np.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2)) * 9 + 0.5, 0.0, 1.0)


def _scales(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    f = rng.uniform(3.0, 5.5)
    x, y = _staggered(u * f, v * f * 1.4)
    return np.clip((np.sqrt((x - 0.5) ** 2 + (0.75 * y) ** 2) - 0.2) * 1.8, 0.0, 1.0)


def _wood(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = fractal_noise(u.shape, rng, base=2, octaves=3)
    return _wave(u * rng.uniform(1.5, 3.0) + 0.15 * v + 2.0 * noise, 0.5)


def _brick(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    f = rng.uniform(3.0, 5.0)
    x, y = _staggered(0.5 * u * f, v * f)
    mortar = np.maximum(np.abs(x - 0.5) * 2 - 0.06, np.abs(y - 0.5) * 2)
    return np.clip((mortar - 0.78) * 9, 0.0, 1.0)


FIELDS: dict[str, Field] = {
    'plain': _plain, 'gradient': _gradient, 'cloud': _cloud, 'stripes': _stripes,
    'checks': _checks, 'dots': _dots, 'scales': _scales, 'wood': _wood, 'brick': _brick,
}  # fmt: skip


def random_color(
    rng: np.random.Generator,
    *,
    saturation: tuple[float, float] = (0.1, 0.8),
    value: tuple[float, float] = (0.3, 0.95),
) -> np.ndarray:
    """A color of any hue: (3,) float32 RGB in [0, 1]."""
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A two-colored textured surface."""

    kind: str  # a key of `FIELDS`
    colors: np.ndarray  # (2, 3) float32 RGB; the texture runs from the first to the second
    angle: float  # direction of the texture in radians

    def paint(self, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The colors at (H, W) coordinates in units of half the object's size: (3, H, W) RGB."""
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        phase = np.float32(rng.random())
        field = FIELDS[self.kind](c * u + s * v + phase, c * v - s * u, rng)
        first, second = self.colors.astype(np.float32)[:, :, None, None]
        return first + field.astype(np.float32, copy=False) * (second - first)


def object_surface(name: str, rng: np.random.Generator, *, angle: float) -> Surface:
    """The main surface of an object: the texture leans on its class, the colors do not."""
    kinds = FAVORITES[name] if rng.random() < FAVORITE_SHARE else tuple(FIELDS)
    first = random_color(rng)
    second = random_color(rng)
    if rng.random() < 0.85:  # a shade of the same hue
        second = first * rng.uniform(0.6, 0.8) if first.max() > 0.6 else first * 1.3
    return Surface(
        kind=kinds[rng.integers(len(kinds))],
        colors=np.stack([first, np.clip(second, 0, 1)]),
        angle=angle + (rng.random() < 0.3) * np.pi / 2,
    )


def _strokes(size: int, rng: np.random.Generator) -> np.ndarray:
    """Blades in a few tones, one over another (grass, fur, straw): (size, size) in [0, 1]."""
    field = np.full((size, size), 0.1, np.float32)
    lean, length = rng.uniform(-0.6, 0.6), size * rng.uniform(0.05, 0.11)
    for tone in rng.random(6):
        roots = rng.uniform(0, size, (70, 2))
        tilt = lean + rng.normal(0, 0.25, 70)
        tips = roots - length * np.stack([np.sin(tilt), np.cos(tilt)], axis=1)
        blades = np.round(np.stack([roots, tips], axis=1)).astype(np.int32)
        cv2.polylines(field, list(blades), False, 0.1 + 0.9 * float(tone), max(1, size // 96))
    return field


def _region(size: int, rng: np.random.Generator) -> np.ndarray:
    kind = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
    first = random_color(rng, saturation=(0.05, 0.6), value=(0.25, 0.9))
    second = np.clip(first * rng.uniform(0.75, 1.25) + rng.normal(0, 0.05, 3), 0.05, 1.0)
    if rng.random() < 0.1:
        second = random_color(rng, saturation=(0.05, 0.6), value=(0.25, 0.9))
    colors = np.stack([first, second]).astype(np.float32)
    light = fractal_noise((size, size), rng, octaves=6)
    grain = np.float32(rng.uniform(0.1, 0.3))
    light = 1 - grain + 2 * grain * light
    if kind == 'grass':
        dark, bright = (0.5 * first)[:, None, None], np.clip(1.2 * second, 0, 1)[:, None, None]
        return (dark + (bright - dark) * _strokes(size, rng)).astype(np.float32) * light
    axis = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.uniform(0.7, 1.8))
    u, v = np.meshgrid(axis, axis)
    surface = Surface(kind=kind, colors=colors, angle=rng.uniform(0, np.pi))
    return surface.paint(u, v, rng) * light


def paint_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Paints a background: (3, size, size) float32 RGB, about [0, 1]."""
    image = _region(size, rng)
    if rng.random() < _HORIZON_SHARE:
        ground = _region(size, rng)
        slope, level = rng.uniform(-0.12, 0.12) * size, rng.uniform(0.3, 0.75) * size
        x = np.linspace(-1, 1, size, dtype=np.float32)
        edge = level + slope * x + size * 0.02 * np.sin(x * rng.uniform(2, 9))
        y = np.arange(size, dtype=np.float32)[:, None]
        below = np.clip((y - edge) * 0.5 + 0.5, 0, 1).astype(np.float32)
        image += below * (ground * rng.uniform(0.75, 1.1) - image)
    return image
