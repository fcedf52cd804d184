"""Figures with a row per image, drawn without pyplot, so without a display or global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, ORANGE = '#2b6cb0', '#dd6b20'
_TILE = 1.6  # inches


@dataclass(frozen=True, kw_only=True)
class PictureColumn:
    """A column of pictures."""

    title: str
    pictures: NDArray[np.uint8]  # (B, h, w, 3)
    captions: Sequence[str] = ()  # below each picture

    def draw(self, ax: Axes, row: int) -> None:
        """Draws one picture."""
        # Smooth where pictures are made smaller; cells of features stay sharp.
        ax.imshow(self.pictures[row], interpolation='antialiased')
        ax.set(xticks=[], yticks=[], frame_on=False)
        if self.captions:
            ax.set_xlabel(self.captions[row], fontsize=8)


@dataclass(frozen=True, kw_only=True)
class SimilarityColumn:
    """A column of similarity distributions over a queue of K entries."""

    title: str
    teacher: NDArray[np.float64]  # (B, K), each row sums to 1
    student: NDArray[np.float64]
    correlation: Sequence[float]  # Pearson's

    def draw(self, ax: Axes, row: int) -> None:
        """Draws one image's distributions over the teacher's ranks, as multiples of 1 / K."""
        order = np.argsort(-self.teacher[row], kind='stable')
        ranks = np.arange(1, len(order) + 1)
        student, teacher = (len(order) * p[row][order] for p in (self.student, self.teacher))
        ax.plot(ranks, student, '.', color=ORANGE, markersize=2, alpha=0.3, label='student')
        ax.plot(ranks, teacher, color=BLUE, label='teacher')
        ax.set(xscale='log', box_aspect=1)
        ax.tick_params(labelsize=7)
        ax.set_xlabel(f'r = {self.correlation[row]:.2f}', fontsize=8)
        if row == 0:
            ax.legend(fontsize=7, frameon=False)


def draw_columns(
    columns: Sequence[PictureColumn | SimilarityColumn], path: str | Path, *, title: str
) -> Path:
    """Draws columns side by side into a file.

    Args:
        columns: what to show, the first one of pictures.
        path: its suffix names the format. Folders are made.
        title: line above it all.
    """
    rows = len(columns[0].pictures)
    figure = Figure(figsize=(_TILE * len(columns), _TILE * rows + 1), layout='constrained')
    figure.suptitle(title, fontsize=10, wrap=True)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, below in zip(columns, axes.T, strict=True):
        below[0].set_title(column.title, fontsize=8)
        for row, ax in enumerate(below):
            column.draw(ax, row)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure; the suffix names the format. Folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
