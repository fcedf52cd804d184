"""Recipes of the animals and plants of Scenes: parts from back to front, varied by ``rng``."""

import numpy as np

from .parts import Part, blob, box, ellipse, mirror, part, polygon, stroke, turn


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
    parts += [
        part(
            blob(
                [
                    (-wide, -0.1),
                    (-0.7, -0.75),
                    (0, -0.65),
                    (0.7, -0.75),
                    (wide, -0.1),
                    (0.75, 0.65),
                    (0, 0.85),
                    (-0.75, 0.65),
                ]
            )
        ),
        part(ellipse(0, 0.38, 0.33, 0.24), paint='light', relief=0.3),
    ]
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
    gill = stroke([(0.38, -0.5 * high), (0.28, 0), (0.38, 0.5 * high)], 0.05)
    return [
        part(polygon([(-0.7, 0), (-1.3, -tail), (-1.3 + fork, 0), (-1.3, tail)]), paint='trim'),
        part(
            blob(
                [
                    (0.35, -0.8 * high),
                    (-0.1, -high - fin),
                    (-0.55, -high - 0.5 * fin),
                    (-0.45, -0.5 * high),
                ],
                rounds=2,
            ),
            paint='trim',
        ),
        part(polygon([(0.1, 0.8 * high), (-0.2, high + fin), (-0.35, 0.7 * high)]), paint='trim'),
        part(body),
        part(gill, paint='dark', relief=0),
        part(
            blob([(0.15, 0.0), (-0.25, 0.3 * high), (-0.2, 0.02)], rounds=1),
            paint='trim',
            relief=0.4,
        ),
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
    parts = [
        part(
            blob(
                [
                    (-stem, -0.1),
                    (stem, -0.1),
                    (stem, 0.4),
                    (foot, 0.9),
                    (0, 1.0),
                    (-foot, 0.9),
                    (-stem, 0.4),
                ],
                rounds=2,
            ),
            paint='light',
            relief=0.7,
        ),
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
    trunk = polygon(
        [
            (-girth, 0),
            (girth, 0),
            (1.25 * girth, 0.95),
            (1.8 * girth, 1.1),
            (-1.8 * girth, 1.1),
            (-1.25 * girth, 0.95),
        ]
    )
    parts = [part(trunk, paint='trim')]
    if rng.random() < 0.5:
        tiers, wide = int(rng.integers(3, 5)), rng.uniform(0.65, 0.85)
        for i in range(tiers):
            share = 1 - 0.6 * i / (tiers - 1)
            low = 0.55 - 1.25 * i / tiers
            parts.append(
                part(
                    polygon(
                        [
                            (-wide * share, low),
                            (-0.5 * wide * share, low + 0.06),
                            (0, low),
                            (0.5 * wide * share, low + 0.06),
                            (wide * share, low),
                            (0, low - 0.75),
                        ]
                    ),
                    relief=0.5,
                )
            )
        return parts
    for angle in np.arange(7) * 2 * np.pi / 7 + rng.uniform(0, 1):
        r = rng.uniform(0.3, 0.42)
        parts.append(
            part(ellipse(0.5 * np.cos(angle), -0.4 + 0.4 * np.sin(angle), r, r), relief=0.4)
        )
    return [*parts, part(ellipse(0, -0.4, 0.42, 0.38), relief=0.4)]
