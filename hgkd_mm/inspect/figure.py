"""Figures with a row per image, drawn without pyplot, so without a display or global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

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


HIDDEN = 235  # grey of positions without a feature, and of hidden cells
_PERCENTILES = (1.0, 99.0)  # ends of the color range, so that outliers don't take all of it


class FeaturePCA:
    """A mapping from features to colors, fitted once and shared by many maps.

    The first three principal components become red, green and blue. A component without variance
    is mid-grey.

    Args:
        features: (B, D, h, w) maps that share one set of components, D >= 3.
        valid: (B, h, w) bool, False for positions without a feature; all True by default.

    Raises:
        ValueError: from scikit-learn: fewer than 3 channels or valid positions, or NaN or Inf.
    """

    def __init__(self, features: Tensor, *, valid: Tensor | None = None) -> None:
        rows = _rows(features)
        if valid is not None:
            rows = rows[_flags(valid)]
        # Seeded because scikit-learn may choose its randomized solver; it also fixes the signs.
        with np.errstate(invalid='ignore'):  # constant features: 0 / 0 explained variance
            self.pca = PCA(n_components=3, random_state=0).fit(rows)
        self.low, self.high = np.percentile(self.pca.transform(rows), _PERCENTILES, axis=0)

    def to_rgb(self, features: Tensor, *, valid: Tensor | None = None) -> NDArray[np.uint8]:
        """(B, D, h, w) feature maps to (B, h, w, 3) uint8; light grey where not ``valid``."""
        scores = self.pca.transform(_rows(features))
        span = self.high - self.low
        flat = span <= 1e-12 * max(1.0, float(np.abs(self.high).max()))
        scaled = np.where(flat, 0.5, (scores - self.low) / np.where(flat, 1.0, span))
        colors = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
        if valid is not None:
            colors[~_flags(valid)] = HIDDEN
        return colors.reshape(len(features), *features.shape[2:], 3)


def _rows(features: Tensor) -> NDArray[np.float64]:
    return features.detach().cpu().double().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _flags(valid: Tensor) -> NDArray[np.bool_]:
    return valid.detach().cpu().bool().flatten().numpy()
