"""What there is to show of a network and a few images: columns, one row an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A column of pictures.

    Attributes:
        group: heading that it shares with its neighbours; none if empty.
        title: its own, of one or two lines.
        pictures: (B, h, w, 3) uint8.
        captions: a line below each picture; none if empty.
    """

    group: str
    title: str
    pictures: NDArray[np.uint8]
    captions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """A column of similarity distributions over a queue of K entries.

    Attributes:
        group: heading that it shares with its neighbours; none if empty.
        title: its own, of one or two lines.
        teacher: (B, K), each row sums to 1.
        student: the same.
        correlation: (B,) Pearson's, of the two rows of each image.
    """

    group: str
    title: str
    teacher: NDArray[np.float64]
    student: NDArray[np.float64]
    correlation: NDArray[np.float64]


@dataclass(kw_only=True)
class View:
    """Columns from left to right, and sentences that explain them.

    Attributes:
        columns: with B rows each; those of one group are neighbours.
        legend: name to colour (R, G, B), below the pictures.
        notes: sentences, below that.
    """

    columns: list[Pictures | Distributions] = field(default_factory=list)
    legend: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of images B.

        Raises:
            ValueError: there is no column, or the columns differ in it.
        """
        counts = {len(c.pictures if isinstance(c, Pictures) else c.teacher) for c in self.columns}
        if len(counts) != 1:
            raise ValueError(
                f'The columns of a view show the same images, but have {sorted(counts)} rows.'
            )
        return counts.pop()
