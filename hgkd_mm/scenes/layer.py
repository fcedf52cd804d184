"""One object put into the picture: geometry, masks, surfaces, light and shadow."""

from dataclasses import dataclass

import cv2
import numpy as np

from .recipes import CLASSES, build_object
from .shapes import Part, turn
from .surfaces import Surface, fractal_noise, object_surface, random_color

ANY_COLOR_SHARE = 0.6
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


@dataclass(frozen=True, kw_only=True)
class Light:
    """A distant light."""

    direction: np.ndarray  # (3,) float32 unit vector: x right, y down, z to the viewer
    ambient: float  # share of the light that comes from everywhere

    @classmethod
    def random(cls, rng: np.random.Generator) -> 'Light':
        """A light from somewhere above."""
        angle, tilt = rng.uniform(-0.85, 0.85), rng.uniform(0.6, 1.0)
        vector = np.array([np.sin(angle), -np.cos(angle), tilt], np.float32)
        return cls(direction=vector / np.linalg.norm(vector), ambient=rng.uniform(0.35, 0.6))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An object placed on the canvas, not yet painted."""

    label: int  # index into `CLASSES`
    origin: tuple[int, int]  # (x, y) of the patch's first pixel on the canvas
    masks: list[np.ndarray]  # (h, w) uint8 coverage of each part, 0 to 255, from back to front
    parts: list[Part]
    silhouette: np.ndarray  # (h, w) uint8, the union of the masks
    center: np.ndarray  # (x, y) of the object on the canvas
    radius: float  # half its longer side in pixels
    angle: float  # its rotation in radians

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the patch lies on the canvas."""
        (x, y), (h, w) = self.origin, self.silhouette.shape
        return slice(y, y + h), slice(x, x + w)

    def on_canvas(self, size: int) -> np.ndarray:
        """(size, size) bool: the object, as if nothing were in front of it."""
        canvas = np.zeros((size, size), bool)
        canvas[self.window] = self.silhouette >= 128
        return canvas


def _unit_area(outlines: list[np.ndarray]) -> float:
    """Area of the union in object units, from a coarse raster."""
    scale = 24
    raster = np.zeros((4 * scale, 4 * scale), np.uint8)
    for outline in outlines:
        cv2.fillPoly(raster, [np.round((outline + 2) * scale).astype(np.int32)], 1)
    return float(raster.sum()) / scale**2


def place_object(
    label: int, canvas: int, rng: np.random.Generator, *, share: float, tilt: float = 40.0
) -> Layer:
    """Draws an object of a class at a random place; its masks are cut at the canvas' edge.

    Args:
        label: Index into `CLASSES`.
        canvas: Side of the canvas in pixels.
        rng: Source of everything else.
        share: Wanted share of the canvas' area. Spindly objects get less: no object is longer
            than 0.98 of the canvas.
        tilt: Largest rotation in degrees.
    """
    parts = build_object(CLASSES[label], rng)
    angle = np.deg2rad(rng.uniform(-tilt, tilt))
    flip, shear, aspect = rng.random() < 0.5, rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.18)
    keystone = rng.uniform(-0.12, 0.12, 2)

    def project(outline: np.ndarray) -> np.ndarray:
        x, y = outline[:, 0] * (-1 if flip else 1) * aspect, outline[:, 1] / aspect
        flat = np.stack([x + shear * y, y], axis=1)
        return turn(flat / (1 + flat @ keystone)[:, None], angle)

    outlines = [[project(o) for o in part.outlines] for part in parts]
    points = np.concatenate([o for group in outlines for o in group])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, extent = (low + high) / 2, high - low
    area = _unit_area([group[0] - middle for group in outlines])
    scale = min(np.sqrt(share / area) * canvas, 0.98 * canvas / extent.max())
    slack = canvas * 1.06 - extent * scale
    center = canvas / 2 + slack * rng.uniform(-0.5, 0.5, 2)

    half = extent * scale / 2
    start = np.clip(np.floor(center - half).astype(int) - 1, 0, canvas - 2)
    stop = np.clip(np.ceil(center + half).astype(int) + 2, start + 1, canvas)
    masks = []
    for group in outlines:
        mask = np.zeros((stop[1] - start[1], stop[0] - start[0]), np.uint8)
        # A pixel's center is at +0.5 here and at +0 in OpenCV.
        fixed = [
            np.round(((o - middle) * scale + center - start - 0.5) * 2**_SHIFT).astype(np.int32)
            for o in group
        ]
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
        masks.append(mask)
    return Layer(
        label=label, origin=(int(start[0]), int(start[1])), masks=masks, parts=parts,
        silhouette=np.maximum.reduce(masks), center=center,
        radius=float(extent.max() * scale / 2), angle=angle,
    )  # fmt: skip


def _illuminate(layer: Layer, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse factor and highlight of the layer, (h, w) float32 each.

    The height is the parts' relief, blurred widely (the body's roundness) and narrowly (the parts'
    rims), so that every part throws light and shade without any model of the solid.
    """
    height = layer.silhouette.astype(np.float32)
    for mask, part in zip(layer.masks, layer.parts, strict=True):
        height += np.float32(0.35 * part.relief) * mask
    wide, narrow = (max(3, int(layer.radius * f)) | 1 for f in (0.45, 0.07))
    body = cv2.blur(cv2.blur(height, (wide, wide)), (wide, wide))
    rims = cv2.blur(cv2.blur(height, (narrow, narrow)), (3, 3))
    relief = (body * np.float32(0.9 * wide) + rims * np.float32(1.1 * narrow)) / 255
    gx, gy = cv2.Sobel(relief, -1, 1, 0, scale=0.125), cv2.Sobel(relief, -1, 0, 1, scale=0.125)
    lx, ly, lz = light.direction
    norm = np.sqrt(gx * gx + gy * gy + 1)
    lambert = np.clip((lz - gx * lx - gy * ly) / norm, 0, None) / lz
    hx, hy, hz = light.direction + np.array([0, 0, 1], np.float32)
    facing = (hz - gx * hx - gy * hy) / norm / np.float32(np.sqrt(hx * hx + hy * hy + hz * hz))
    shine = np.clip(facing, 0, 1)
    for _ in range(5):  # to the 32nd power: np.power costs more than all else here
        shine *= shine
    diffuse = light.ambient + (1 - light.ambient) * np.minimum(lambert, 1.7)
    return diffuse, shine


def _paints(
    layer: Layer, rng: np.random.Generator, avoid: np.ndarray
) -> tuple[dict[str, Surface], dict[str, np.ndarray]]:
    """The object's textured surfaces and flat colors; the skin stands off from `avoid`."""
    name = CLASSES[layer.label]
    skin = object_surface(name, rng, angle=layer.angle)
    for _ in range(4):
        if np.abs(skin.colors.mean(axis=0) - avoid).sum() > 0.45:
            break
        skin = object_surface(name, rng, angle=layer.angle)
    trim = object_surface(name, rng, angle=layer.angle)
    flat = {
        'light': random_color(rng, saturation=(0.0, 0.25), value=(0.8, 1.0)),
        'dark': random_color(rng, saturation=(0.1, 0.6), value=(0.08, 0.22)),
        'glass': random_color(rng, saturation=(0.1, 0.4), value=(0.45, 0.85)),
    }
    for tone in flat:  # or any color at all: black wheels and white eyes would give classes away
        if rng.random() < ANY_COLOR_SHARE:
            flat[tone] = random_color(rng)
    return {'skin': skin, 'trim': trim}, flat


def cast_shadow(canvas: np.ndarray, layer: Layer, light: Light, rng: np.random.Generator) -> None:
    """Darkens the canvas in place where the object keeps the light away, softly."""
    size, coarse = canvas.shape[-1], 4
    full = np.zeros((size, size), np.uint8)
    full[layer.window] = layer.silhouette
    small = cv2.resize(full, (size // coarse, size // coarse), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    away = -light.direction[:2] * layer.radius * rng.uniform(0.15, 0.3) / coarse
    small = cv2.warpAffine(small, np.float32([[1, 0, away[0]], [0, 1, away[1]]]), small.shape[::-1])
    small = cv2.GaussianBlur(small, (0, 0), max(0.8, 0.06 * layer.radius / coarse))
    shade = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    canvas *= 1 - (np.float32(rng.uniform(0.35, 0.6)) / 255) * shade


def paint_layer(canvas: np.ndarray, layer: Layer, light: Light, rng: np.random.Generator) -> None:
    """Paints an object with its shadow over the (3, H, W) canvas, in place."""
    cast_shadow(canvas, layer, light, rng)
    under = canvas[(slice(None), *layer.window)]
    surfaces, flat = _paints(layer, rng, under[:, ::4, ::4].mean(axis=(1, 2)))
    height, width = layer.silhouette.shape
    axes = (
        ((np.arange(n) + o - c) / layer.radius).astype(np.float32)
        for n, o, c in zip((width, height), layer.origin, layer.center, strict=True)
    )
    u, v = np.meshgrid(*axes)
    textured = {name: surface.paint(u, v, rng) for name, surface in surfaces.items()}
    rgb = textured['skin'].copy()
    for mask, part in zip(layer.masks, layer.parts, strict=True):
        x, y, w, h = cv2.boundingRect(mask)
        patch = np.s_[:, y : y + h, x : x + w]
        if part.paint in textured:
            paint = textured[part.paint][patch]
        else:
            paint = flat[part.paint][:, None, None]
        rgb[patch] += mask[patch[1:]] * np.float32(1 / 255) * (paint - rgb[patch])
    diffuse, shine = _illuminate(layer, light)
    grain = fractal_noise(u.shape, rng, base=4)
    rgb *= diffuse * (0.92 + 0.16 * grain)
    rgb += shine * np.float32(rng.uniform(0.0, 0.3))
    under += layer.silhouette * np.float32(1 / 255) * (rgb - under)
