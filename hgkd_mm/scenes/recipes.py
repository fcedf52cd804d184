"""The classes of Scenes: each is a recipe of parts from back to front, varied by ``rng``."""

from collections.abc import Callable

import numpy as np

from .shapes import (
    Part,
    blob,
    box,
    corners,
    ellipse,
    mirror,
    normalize,
    part,
    polygon,
    stroke,
    turn,
)

Recipe = Callable[[np.random.Generator], list[Part]]


def _eye(x: float, y: float, r: float) -> list[Part]:
    white = part(ellipse(x, y, r, r, points=20), paint='light', relief=0.2)
    return [white, part(ellipse(x, y, 0.5 * r, 0.6 * r, points=14), paint='dark', relief=0)]


def butterfly(rng: np.random.Generator) -> list[Part]:
    """Four wings with spots, body, feelers."""
    up, out = rng.uniform(0.75, 1.0), rng.uniform(0.95, 1.15)
    low, spot = rng.uniform(0.7, 0.95), rng.uniform(0.1, 0.18)
    upper = blob([(0.03, 0), (0.25, -0.55 * up), (out, -1.1 * up), (1.1 * out, -0.3), (0.6, 0.12)])
    lower = blob([(0.03, 0), (0.65, -0.05), (0.85, 0.4), (0.55, low), (0.2, 0.75 * low)])
    feeler = stroke([(0.03, -0.4), (0.1, -0.7), (0.25, -0.95)], 0.05)
    parts = [
        part(w, paint=p)
        for outline, p in ((lower, 'trim'), (upper, 'skin'))
        for w in (outline, mirror(outline))
    ]
    for outline in (
        ellipse(0.72 * out, -0.55 * up, spot, 1.2 * spot),
        ellipse(0.5, 0.45 * low, 0.8 * spot, 0.8 * spot),
    ):
        parts += [part(w, paint='light', relief=0) for w in (outline, mirror(outline))]
    parts += [part(w, paint='dark', relief=0.2) for w in (feeler, mirror(feeler))]
    return [*parts, part(ellipse(0, 0.05, 0.1, 0.55), paint='dark')]


def cat(rng: np.random.Generator) -> list[Part]:
    """A face: ears, eyes, muzzle, whiskers."""
    wide, ear, eye = rng.uniform(0.85, 1.0), rng.uniform(0.95, 1.2), rng.uniform(0.15, 0.21)
    outer = polygon([(0.25, -0.55), (0.72, -ear), (0.88 * wide, -0.1)])
    inner = polygon([(0.42, -0.58), (0.69, -0.85 * ear), (0.78 * wide, -0.3)])
    parts = [part(o) for o in (outer, mirror(outer))]
    parts += [part(o, paint='trim', relief=0) for o in (inner, mirror(inner))]
    x = (-wide, -0.7, 0, 0.7, wide, 0.75, 0, -0.75)
    y = (-0.1, -0.75, -0.65, -0.75, -0.1, 0.65, 0.85, 0.65)
    muzzle = ellipse(0, 0.38, 0.33, 0.24)
    parts += [part(blob(corners(x, y))), part(muzzle, paint='light', relief=0.3)]
    for side in (-1, 1):
        x = 0.38 * side
        parts.append(part(ellipse(x, -0.1, eye, 1.1 * eye, points=20), paint='light', relief=0.2))
        parts.append(part(ellipse(x, -0.1, 0.35 * eye, eye, points=14), paint='dark', relief=0))
        for tilt in (-0.16, 0.02, 0.2):
            whisker = stroke([(0.25 * side, 0.36), (1.05 * side, 0.32 + tilt)], 0.035)
            parts.append(part(whisker, paint='light', relief=0))
    nose = polygon([(-0.12, 0.2), (0.12, 0.2), (0, 0.36)])
    mouth = stroke([(-0.2, 0.48), (-0.08, 0.54), (0, 0.4), (0.08, 0.54), (0.2, 0.48)], 0.05)
    return [*parts, part(nose, paint='dark', relief=0), part(mouth, paint='dark', relief=0)]


def fish(rng: np.random.Generator) -> list[Part]:
    """Body from the side, tail, fins, gill, eye."""
    high, tail, fin = rng.uniform(0.4, 0.62), rng.uniform(0.4, 0.65), rng.uniform(0.2, 0.35)
    fork = rng.uniform(0.0, 0.25)
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    body = np.stack([0.9 * np.cos(t), high * np.sin(t) * (1 + 0.3 * np.cos(t))], axis=1)
    x, y = (0.35, -0.1, -0.55, -0.45), (-0.8 * high, -high - fin, -high - 0.5 * fin, -0.5 * high)
    back, side = corners(x, y), blob([(0.15, 0.0), (-0.25, 0.3 * high), (-0.2, 0.02)], rounds=1)
    gill = stroke([(0.38, -0.5 * high), (0.28, 0), (0.38, 0.5 * high)], 0.05)
    return [
        part(polygon([(-0.7, 0), (-1.3, -tail), (-1.3 + fork, 0), (-1.3, tail)]), paint='trim'),
        part(blob(back, rounds=2), paint='trim'),
        part(polygon([(0.1, 0.8 * high), (-0.2, high + fin), (-0.35, 0.7 * high)]), paint='trim'),
        part(body),
        part(gill, paint='dark', relief=0),
        part(side, paint='trim', relief=0.4),
        *_eye(0.6, -0.22 * high, 0.13),
        part(stroke([(0.88, 0.15 * high), (0.7, 0.28 * high)], 0.05), paint='dark', relief=0),
    ]


def flower(rng: np.random.Generator) -> list[Part]:
    """Five to eight petals around a core, stem, two leaves."""
    petals, phase = int(rng.integers(5, 9)), rng.uniform(0, 2 * np.pi)
    wide, core = rng.uniform(0.75, 1.05) * 2.0 / petals, rng.uniform(0.24, 0.34)
    parts = [part(stroke([(0, 0), (0.05, 0.9), (-0.05, 1.45)], 0.11), paint='trim', relief=0.6)]
    for side in (-1, 1):
        leaf = [(0, 1.2), (0.3 * side, 0.8), (0.75 * side, 0.75), (0.4 * side, 1.15)]
        parts.append(part(blob(leaf), paint='trim', relief=0.6))
    petal = ellipse(0, -0.6, wide, 0.38)
    angles = phase + np.arange(petals) * 2 * np.pi / petals
    parts += [part(turn(petal, a), relief=0.6) for a in angles]
    return [
        *parts,
        part(ellipse(0, 0, core, core), paint='dark', relief=0.9),
        part(ellipse(0, 0, 0.75 * core, 0.75 * core), paint='light', relief=0.3),
    ]


def mushroom(rng: np.random.Generator) -> list[Part]:
    """Cap with spots, stem, ring."""
    wide, high, rim = rng.uniform(0.85, 1.05), rng.uniform(0.75, 1.0), rng.uniform(0.05, 0.2)
    stem, foot = rng.uniform(0.2, 0.3), rng.uniform(0.26, 0.45)
    t = np.linspace(np.pi, 2 * np.pi, 24)
    dome = np.stack([wide * np.cos(t), high * np.sin(t)], axis=1)
    brim = np.stack([wide * np.cos(t[::-1]), -rim * np.sin(t[::-1])], axis=1)
    x, y = (-stem, stem, stem, foot, 0, -foot, -stem), (-0.1, -0.1, 0.4, 0.9, 1.0, 0.9, 0.4)
    parts = [
        part(blob(corners(x, y), rounds=2), paint='light', relief=0.7),
        part(box(-stem - 0.1, 0.22, stem + 0.1, 0.34, radius=0.05), paint='trim', relief=0.3),
        part(np.concatenate([dome, brim])),
    ]
    for x in (-0.55, -0.1, 0.4):
        r = rng.uniform(0.09, 0.17)
        y = rng.uniform(-0.6, -0.2) * high
        parts.append(part(ellipse(x * wide, y, r, 0.85 * r), paint='light', relief=0.1))
    return parts


def tree(rng: np.random.Generator) -> list[Part]:
    """Trunk under tiers (conifer) or a round crown."""
    girth = rng.uniform(0.12, 0.18)
    x = (-girth, girth, 1.25 * girth, 1.8 * girth, -1.8 * girth, -1.25 * girth)
    trunk = polygon(corners(x, (0, 0, 0.95, 1.1, 1.1, 0.95)))
    parts = [part(trunk, paint='trim')]
    if rng.random() < 0.5:
        tiers, wide = int(rng.integers(3, 5)), rng.uniform(0.65, 0.85)
        for i in range(tiers):
            share = 1 - 0.6 * i / (tiers - 1)
            low = 0.55 - 1.25 * i / tiers
            x = (-wide * share, -0.5 * wide * share, 0, 0.5 * wide * share, wide * share, 0)
            y = (low, low + 0.06, low, low + 0.06, low, low - 0.75)
            parts.append(part(polygon(corners(x, y)), relief=0.5))
        return parts
    for angle in np.arange(7) * 2 * np.pi / 7 + rng.uniform(0, 1):
        x, y, r = 0.5 * np.cos(angle), -0.4 + 0.4 * np.sin(angle), rng.uniform(0.3, 0.42)
        parts.append(part(ellipse(x, y, r, r), relief=0.4))
    return [*parts, part(ellipse(0, -0.4, 0.42, 0.38), relief=0.4)]


def boat(rng: np.random.Generator) -> list[Part]:
    """A sailing boat: hull, mast, mainsail, jib."""
    mast, deck = rng.uniform(-0.15, 0.15), rng.uniform(0.35, 0.45)
    sail, jib, top = rng.uniform(0.65, 0.9), rng.uniform(0.5, 0.75), -1.0
    hull = [(-1, deck), (1.05, deck - 0.08), (0.75, 0.9), (0.6, 0.95), (-0.65, 0.95), (-0.8, 0.85)]
    boom = deck - 0.12
    return [
        part(box(mast - 0.03, top - 0.12, mast + 0.03, deck + 0.05), paint='dark', relief=0.4),
        part(blob([(mast + 0.05, top), (mast + 0.05, boom), (mast + sail, boom)], rounds=1)),
        part(
            polygon([(mast - 0.06, top + 0.15), (mast - 0.06, boom), (mast - jib, boom)]),
            paint='light',
        ),
        part(polygon(hull), paint='trim'),
        part(box(-0.85, deck + 0.08, 0.9, deck + 0.15), paint='light', relief=0),
    ]


def car(rng: np.random.Generator) -> list[Part]:
    """Body, cabin with two windows, two wheels."""
    roof, back, front = rng.uniform(-0.62, -0.45), rng.uniform(-0.95, -0.6), rng.uniform(0.4, 0.6)
    wheel, axle = rng.uniform(0.23, 0.29), rng.uniform(0.6, 0.7)
    cabin = [(back, 0), (back + 0.22, roof), (front - 0.28, roof), (front + 0.08, 0)]
    post = (back + front) / 2
    y = (-0.06, roof + 0.1, roof + 0.1, -0.06)
    rear = (back + 0.16, back + 0.3, post - 0.06, post - 0.06)
    windshield = (post + 0.04, post + 0.04, front - 0.32, front - 0.06)
    parts = [
        part(polygon(cabin)),
        part(box(-1.1, -0.08, 1.1, 0.42, radius=0.16)),
        *[part(polygon(corners(x, y)), paint='glass', relief=0) for x in (rear, windshield)],
        part(box(-1.08, 0.26, 1.08, 0.38, radius=0.04), paint='trim', relief=0.2),
        part(ellipse(1.0, 0.1, 0.08, 0.1), paint='light', relief=0.2),
    ]
    for x in (-axle, axle):
        for radius, paint, relief in ((wheel, 'dark', 0.8), (0.5 * wheel, 'light', 0.2)):
            parts.append(part(ellipse(x, 0.42, radius, radius), paint=paint, relief=relief))
    return parts


def house(rng: np.random.Generator) -> list[Part]:
    """Wall, roof, chimney, door, two windows."""
    wide, eaves, peak = rng.uniform(0.65, 0.85), rng.uniform(-0.2, 0.0), rng.uniform(-1.0, -0.8)
    door, pane = rng.uniform(-0.35, 0.0), rng.uniform(0.14, 0.19)
    parts = [
        part(box(0.3, peak + 0.05, 0.52, eaves), paint='trim', relief=0.6),
        part(box(-wide, eaves - 0.05, wide, 0.9)),
        part(
            polygon([(-wide - 0.2, eaves + 0.05), (0, peak), (wide + 0.2, eaves + 0.05)]),
            paint='trim',
        ),
        part(box(door - 0.15, 0.35, door + 0.15, 0.9), paint='dark', relief=0.1),
    ]
    for x, y in ((door + 0.5, 0.4), (door - 0.05, eaves - 0.28)):
        frame = box(x - pane - 0.04, y - pane - 0.04, x + pane + 0.04, y + pane + 0.04)
        parts.append(part(frame, paint='light', relief=0.2))
        bar = 0.02
        for x0, x1 in ((x - pane, x - bar), (x + bar, x + pane)):
            panes = box(x0, y - pane, x1, y - bar), box(x0, y + bar, x1, y + pane)
            parts.append(part(*panes, paint='glass', relief=0))
    return parts


def key(rng: np.random.Generator) -> list[Part]:
    """Bow with a hole, collar, shaft, two or three teeth."""
    bow, hole, thick = rng.uniform(0.5, 0.6), rng.uniform(0.2, 0.28), rng.uniform(0.13, 0.17)
    x, end = -0.7, rng.uniform(0.95, 1.15)
    if rng.random() < 0.5:
        outer = ellipse(x, 0, bow, bow)
    else:
        outer = box(x - bow, -0.9 * bow, x + bow, 0.9 * bow, radius=0.3)
    parts = [part(box(x + 0.8 * bow, -thick, end, thick, radius=0.08))]
    for i in range(int(rng.integers(2, 4))):
        left = end - 0.24 - 0.3 * i
        parts.append(part(box(left, 0, left + 0.19, thick + rng.uniform(0.2, 0.42))))
    collar = box(x + bow + 0.02, -thick - 0.08, x + bow + 0.13, thick + 0.08)
    parts.append(part(outer, ellipse(x - 0.08, 0, hole, hole)))
    return [*parts, part(collar, paint='trim', relief=0.5)]


def mug(rng: np.random.Generator) -> list[Part]:
    """Body seen from a little above, handle, band."""
    top, base, high = rng.uniform(0.58, 0.7), rng.uniform(0.45, 0.65), rng.uniform(0.65, 0.85)
    lip, reach = rng.uniform(0.12, 0.2), rng.uniform(0.36, 0.48)
    t = np.linspace(0, np.pi, 16)
    floor = np.stack([base * np.cos(t), high + 0.6 * lip * np.sin(t)], axis=1)
    body = np.concatenate([polygon([(-top, -high), (top, -high)]), floor])
    x = (top + base) / 2
    handle = (ellipse(x, 0, reach, 0.5), ellipse(x, 0, reach - 0.17, 0.31))
    band = polygon([(-x - 0.03, 0.15), (x + 0.03, 0.15), (x, 0.35), (-x, 0.35)])
    return [
        part(*handle, relief=0.8),
        part(body),
        part(band, paint='trim', relief=0),
        part(ellipse(0, -high, top, lip), paint='light', relief=0.3),
        part(ellipse(0, -high + 0.02, 0.86 * top, 0.72 * lip), paint='dark', relief=-0.3),
    ]


def rocket(rng: np.random.Generator) -> list[Part]:
    """Hull, nose cone, fins, porthole, flame."""
    wide, fin, port = rng.uniform(0.3, 0.42), rng.uniform(0.3, 0.45), rng.uniform(0.13, 0.18)
    flame, nose = rng.uniform(0.3, 0.55), rng.uniform(-0.6, -0.45)
    x = (0, 0, wide, wide, 0.75 * wide, -0.75 * wide, -wide, -wide)
    hull = blob(corners(x, (-1.15, -1.15, -0.6, 0.1, 0.65, 0.65, 0.1, -0.6)))
    tip = hull[hull[:, 1] < nose]
    cone = tip[np.argsort(tip[:, 0])]
    side = polygon([(0.75 * wide, 0.05), (wide + fin, 0.55), (wide + fin, 0.95), (0.6 * wide, 0.6)])
    x = (-0.5 * wide, 0.5 * wide, 0.32 * wide, 0, -0.32 * wide)
    y = (0.6, 0.6, 0.8 + 0.4 * flame, 0.75 + flame, 0.8 + 0.4 * flame)
    fire = polygon(corners(x, y))
    return [
        part(fire, paint='light', relief=0.2),
        *[part(o, paint='trim', relief=0.7) for o in (side, mirror(side))],
        part(hull),
        part(cone, paint='trim', relief=0.2),
        part(ellipse(0, -0.15, port + 0.06, port + 0.06), paint='light', relief=0.3),
        part(ellipse(0, -0.15, port, port), paint='glass', relief=-0.2),
        part(box(-0.05, 0.25, 0.05, 0.85, radius=0.04), paint='trim', relief=0.4),
    ]


_RECIPES = (boat, butterfly, car, cat, fish, flower, house, key, mug, mushroom, rocket, tree)
RECIPES: dict[str, Recipe] = {recipe.__name__: recipe for recipe in _RECIPES}
CLASSES: tuple[str, ...] = tuple(RECIPES)


def build_object(name: str, rng: np.random.Generator) -> list[Part]:
    """Draws one object of a class.

    Args:
        name: One of `CLASSES`.
        rng: Source of the variation within the class.

    Returns:
        Its parts from back to front, upright, bounding box centered, longer half side 1.
    """
    return normalize(RECIPES[name](rng))
