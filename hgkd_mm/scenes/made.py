"""Recipes of the man-made objects of Scenes: parts from back to front, varied by ``rng``."""

import numpy as np

from .parts import Part, blob, box, ellipse, mirror, part, polygon


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
    wheel, x = rng.uniform(0.23, 0.29), rng.uniform(0.6, 0.7)
    cabin = [(back, 0), (back + 0.22, roof), (front - 0.28, roof), (front + 0.08, 0)]
    post = (back + front) / 2
    glass = [
        [
            (back + 0.16, -0.06),
            (back + 0.3, roof + 0.1),
            (post - 0.06, roof + 0.1),
            (post - 0.06, -0.06),
        ],
        [
            (post + 0.04, -0.06),
            (post + 0.04, roof + 0.1),
            (front - 0.32, roof + 0.1),
            (front - 0.06, -0.06),
        ],
    ]
    parts = [
        part(polygon(cabin)),
        part(box(-1.1, -0.08, 1.1, 0.42, radius=0.16)),
        *[part(polygon(g), paint='glass', relief=0) for g in glass],
        part(box(-1.08, 0.26, 1.08, 0.38, radius=0.04), paint='trim', relief=0.2),
        part(ellipse(1.0, 0.1, 0.08, 0.1), paint='light', relief=0.2),
    ]
    for centre in (-x, x):
        parts.append(part(ellipse(centre, 0.42, wheel, wheel), paint='dark', relief=0.8))
        parts.append(
            part(ellipse(centre, 0.42, 0.5 * wheel, 0.5 * wheel), paint='light', relief=0.2)
        )
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
        parts.append(
            part(
                box(x - pane - 0.04, y - pane - 0.04, x + pane + 0.04, y + pane + 0.04),
                paint='light',
                relief=0.2,
            )
        )
        bar = 0.02
        for x0, x1 in ((x - pane, x - bar), (x + bar, x + pane)):
            parts.append(
                part(
                    box(x0, y - pane, x1, y - bar),
                    box(x0, y + bar, x1, y + pane),
                    paint='glass',
                    relief=0,
                )
            )
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
    hull = blob(
        [
            (0, -1.15),
            (0, -1.15),
            (wide, -0.6),
            (wide, 0.1),
            (0.75 * wide, 0.65),
            (-0.75 * wide, 0.65),
            (-wide, 0.1),
            (-wide, -0.6),
        ]
    )
    cone = np.concatenate([hull[hull[:, 1] < nose][np.argsort(hull[hull[:, 1] < nose][:, 0])]])
    side = polygon([(0.75 * wide, 0.05), (wide + fin, 0.55), (wide + fin, 0.95), (0.6 * wide, 0.6)])
    fire = polygon(
        [
            (-0.5 * wide, 0.6),
            (0.5 * wide, 0.6),
            (0.32 * wide, 0.8 + 0.4 * flame),
            (0, 0.75 + flame),
            (-0.32 * wide, 0.8 + 0.4 * flame),
        ]
    )
    return [
        part(fire, paint='light', relief=0.2),
        *[part(o, paint='trim', relief=0.7) for o in (side, mirror(side))],
        part(hull),
        part(cone, paint='trim', relief=0.2),
        part(ellipse(0, -0.15, port + 0.06, port + 0.06), paint='light', relief=0.3),
        part(ellipse(0, -0.15, port, port), paint='glass', relief=-0.2),
        part(box(-0.05, 0.25, 0.05, 0.85, radius=0.04), paint='trim', relief=0.4),
    ]
