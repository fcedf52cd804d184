"""How the weights of a file fit a network, by name and shape.

Counters of batch norms (``num_batches_tracked``) are no weights: nothing reads them unless a norm
has ``momentum=None``, and old files lack them. They are not counted, and are loaded where a file
has them; absent ones stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

_COUNTER = 'num_batches_tracked'
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What of a network a file fills.

    Attributes:
        total: number of weights of the network.
        missing: names that the file does not have.
        other_shape: names that the file has in another shape.
        unused: names of the file that the network does not have.
    """

    total: int
    missing: tuple[str, ...]
    other_shape: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def shortfalls(self) -> dict[str, tuple[str, ...]]:
        """Weights of the network that are not the file's, by what is wrong with them."""
        return {'missing': self.missing, 'of another shape': self.other_shape}

    @property
    def lacking(self) -> tuple[str, ...]:
        """All weights of the network that are not the file's."""
        return tuple(name for names in self.shortfalls.values() for name in names)

    @property
    def loaded(self) -> int:
        """Number of weights that are the file's."""
        return self.total - len(self.lacking)

    def counts(self) -> str:
        """The report in one line."""
        shortfalls = ', '.join(
            f'{len(names)} {what}{listed(names, ": {}")}' for what, names in self.shortfalls.items()
        )
        return (
            f'{self.loaded} of {self.total} weights ({shortfalls}; {len(self.unused)} in the file '
            f'not used{listed(self.unused, ": {}")})'
        )


def compare(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Fit:
    """Compares a network with weights for it.

    Args:
        own: the network's state.
        found: name to tensor, in its naming.
    """
    names = weight_names(own)
    return Fit(
        total=len(names),
        missing=tuple(name for name in names if name not in found),
        other_shape=tuple(
            name for name in names if name in found and found[name].shape != own[name].shape
        ),
        unused=tuple(name for name in weight_names(found) if name not in own),
    )


def fitting(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a network can take of a file, counters of batch norms among it."""
    return {
        name: value
        for name, value in found.items()
        if name in own and own[name].shape == value.shape
    }


def weight_names(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names without those of counters."""
    return tuple(name for name in tensors if not name.endswith(_COUNTER))


def shapes_of(
    names: Collection[str], own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Names, each with the shape that a file has and the one that a network needs."""
    return tuple(
        f'{name} is {tuple(found[name].shape)}, needed {tuple(own[name].shape)}' for name in names
    )


def listed(names: Collection[str], form: str = ' ({})') -> str:
    """The first names, and how many more there are.

    Args:
        names: any number.
        form: what stands around them, with ``{}`` in their place.

    Returns:
        '' if there are none.
    """
    if not names:
        return ''
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return form.format(f'{", ".join(islice(names, _SHOWN))}{more}')
