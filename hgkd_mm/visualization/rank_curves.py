"""Two similarity distributions over a queue as curves over the teacher's ranks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from .sheet import FAINT, INK
from .view import Distributions

TEACHER_COLOUR, STUDENT_COLOUR = '#2b6cb0', '#dd6b20'

_BINS = 48


def draw_rank_curves(ax: Axes, column: Distributions, row: int, *, last: bool) -> None:
    """Draws one image's distributions, entries in the order of the teacher's.

    A queue has thousands of entries, whose student values jump; they are shown by their mean
    and the middle 80 % among entries of like rank.

    Args:
        ax: where.
        column: the distributions.
        row: which image.
        last: whether it is the lowest of its column, which has the axis labels.
    """
    teacher, student = by_rank(column.teacher[row], column.student[row])
    centres, mean, low, high = binned(student, bins=_BINS)
    ranks = np.arange(1, len(teacher) + 1)
    ax.fill_between(centres, low, high, color=STUDENT_COLOUR, alpha=0.25, linewidth=0)
    ax.plot(ranks, teacher, color=TEACHER_COLOUR, linewidth=1.6, label='teacher')
    ax.plot(centres, mean, color=STUDENT_COLOUR, linewidth=1.6, label='student')
    ax.axhline(1, color=FAINT, linewidth=0.7, linestyle=':')
    at = dict(transform=ax.transAxes, ha='right', va='top', fontsize=8.5, color=INK)
    ax.text(0.97, 0.95, f'r = {column.correlation[row]:.2f}', **at)
    if row == 0:
        ax.legend(fontsize=7.5, frameon=False, loc='upper right', bbox_to_anchor=(1, 0.86))
    ax.set_xscale('log')
    ax.set_xlim(1, len(teacher))
    ax.set_ylim(bottom=0)
    ax.locator_params(axis='y', nbins=4)
    ax.xaxis.set_major_formatter('{x:g}' if last else NullFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.spines[['top', 'right']].set_visible(False)
    ax.spines[['left', 'bottom']].set_color(FAINT)
    ax.tick_params(labelsize=7, colors=FAINT, labelcolor=INK, length=3)
    ax.tick_params(axis='x', which='minor', colors=FAINT, length=1.5)
    if last:
        ax.set_xlabel("teacher's rank", fontsize=7.5, color=INK, labelpad=1)


def by_rank(
    teacher: NDArray[np.float64], student: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both distributions (K,), the teacher's largest entry first, as multiples of 1 / K."""
    order = np.argsort(-teacher, kind='stable')
    return teacher[order] * len(teacher), student[order] * len(student)


def binned(
    values: NDArray[np.float64], *, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Neighbours in bins that are of equal width on a logarithmic scale of ranks.

    Args:
        values: (K,), by rank.
        bins: number of bins; fewer come out, since the first ranks have a bin of their own.

    Returns:
        Of each bin the mean rank, from 1, and the mean, 10th and 90th percentile of its values.
    """
    edges = np.unique(np.rint(np.geomspace(1, len(values) + 1, bins + 1)).astype(int)) - 1
    parts = [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    ranks = np.arange(1, len(values) + 1)
    low, high = np.array([np.percentile(values[part], (10, 90)) for part in parts]).T
    means = np.array([values[part].mean() for part in parts])
    return np.array([ranks[part].mean() for part in parts]), means, low, high
