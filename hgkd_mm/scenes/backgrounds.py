"""What lies behind the objects: one or two textured regions with 1/f noise."""

import cv2
import numpy as np

from .textures import Surface, fractal_noise, random_colour

KINDS = (
    'cloud',
    'cloud',
    'gradient',
    'gradient',
    'stripes',
    'brick',
    'checks',
    'wood',
    'dots',
    'grass',
)
HORIZON_SHARE = 0.4


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
    kind = KINDS[rng.integers(len(KINDS))]
    first = random_colour(rng, saturation=(0.05, 0.6), value=(0.25, 0.9))
    second = np.clip(first * rng.uniform(0.75, 1.25) + rng.normal(0, 0.05, 3), 0.05, 1.0)
    if rng.random() < 0.1:
        second = random_colour(rng, saturation=(0.05, 0.6), value=(0.25, 0.9))
    colours = np.stack([first, second]).astype(np.float32)
    light = fractal_noise((size, size), rng, octaves=6)
    grain = np.float32(rng.uniform(0.1, 0.3))
    light = 1 - grain + 2 * grain * light
    if kind == 'grass':
        dark, bright = (0.5 * first)[:, None, None], np.clip(1.2 * second, 0, 1)[:, None, None]
        return (dark + (bright - dark) * _strokes(size, rng)).astype(np.float32) * light
    axis = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.uniform(0.7, 1.8))
    u, v = np.meshgrid(axis, axis)
    surface = Surface(kind=kind, colours=colours, angle=rng.uniform(0, np.pi))
    return surface.paint(u, v, rng) * light


def paint_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Paints a background.

    Args:
        size: Side in pixels.
        rng: Source of everything in it.

    Returns:
        (3, size, size) float32 RGB, about [0, 1].
    """
    image = _region(size, rng)
    if rng.random() < HORIZON_SHARE:
        ground = _region(size, rng)
        slope, level = rng.uniform(-0.12, 0.12) * size, rng.uniform(0.3, 0.75) * size
        x = np.linspace(-1, 1, size, dtype=np.float32)
        edge = level + slope * x + size * 0.02 * np.sin(x * rng.uniform(2, 9))
        y = np.arange(size, dtype=np.float32)[:, None]
        below = np.clip((y - edge) * 0.5 + 0.5, 0, 1).astype(np.float32)
        image += below * (ground * rng.uniform(0.75, 1.1) - image)
    return image
