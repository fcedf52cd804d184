"""The object classes of Scenes."""

from collections.abc import Callable

import numpy as np

from . import living, made
from .parts import Part, normalise

Recipe = Callable[[np.random.Generator], list[Part]]

RECIPES: dict[str, Recipe] = {
    'boat': made.boat,
    'butterfly': living.butterfly,
    'car': made.car,
    'cat': living.cat,
    'fish': living.fish,
    'flower': living.flower,
    'house': made.house,
    'key': made.key,
    'mug': made.mug,
    'mushroom': living.mushroom,
    'rocket': made.rocket,
    'tree': living.tree,
}
CLASSES: tuple[str, ...] = tuple(RECIPES)


def build_object(name: str, rng: np.random.Generator) -> list[Part]:
    """Draws one object of a class.

    Args:
        name: One of `CLASSES`.
        rng: Source of the variation within the class.

    Returns:
        Its parts from back to front, upright, bounding box centred, longer half side 1.

    Raises:
        ValueError: The class is unknown.
    """
    if name not in RECIPES:
        raise ValueError(f'Scenes has no class {name!r}; it has {", ".join(CLASSES)}.')
    return normalise(RECIPES[name](rng))
