"""The layout of all figures with images: columns of pictures and plots, one row per image.

Drawn without pyplot, so neither a display nor global state is needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from .scalars import Curve

INK, FAINT, BLUE, ORANGE = '#1f2933', '#9aa5b1', '#2b6cb0', '#dd6b20'
_DPI = 130
# Inches.
_MARGIN, _GAP, _GROUP_GAP, _MIN_WIDTH = 0.15, 0.08, 0.3, 5.85
_PLOT, _TICKS, _AXIS, _CURVES = 2.34, 0.36, 0.3, 3.2
_TITLE, _GROUP, _CAPTION, _LINE = 0.36, 0.24, 0.2, 0.17
_LEGEND_ENTRY = 0.95
# Letters per inch, at their font sizes.
_TITLE_LETTERS, _GROUP_LETTERS, _NOTE_LETTERS = 12.0, 14.0, 16.5
_BINS = 48


@dataclass(frozen=True, kw_only=True)
class PictureColumn:
    """A column of pictures."""

    group: str = ''  # heading shared with neighboring columns
    title: str  # of one or two lines
    pictures: NDArray[np.uint8]  # (B, h, w, 3)
    captions: Sequence[str] = ()  # below each picture


@dataclass(frozen=True, kw_only=True)
class DistributionColumn:
    """A column of similarity distributions over a queue of K entries."""

    group: str = ''
    title: str
    teacher: NDArray[np.float64]  # (B, K), each row sums to 1
    student: NDArray[np.float64]
    correlation: NDArray[np.float64]  # (B,) Pearson's


@dataclass(kw_only=True)
class ImageGrid:
    """Contents of a figure."""

    columns: list[PictureColumn | DistributionColumn]  # the first one of pictures
    curves: Mapping[str, Curve] = field(default_factory=dict)  # by title, right of the columns
    legend: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)  # below them
    notes: list[str] = field(default_factory=list)  # sentences below the legend


def draw_grid(grid: ImageGrid, path: str | Path, *, title: str, tile: float = 1.5) -> Path:
    """Draws a grid into a file.

    Args:
        grid: what to show.
        path: its suffix names the format. Folders are made.
        title: line above it all.
        tile: width of a picture, in inches.
    """
    widths, cells = _columns(grid, tile)
    width = sum(widths)
    titles = textwrap.wrap(title, int(width * _TITLE_LETTERS))
    letters = int(width * _NOTE_LETTERS)
    notes = [line for note in grid.notes for line in textwrap.wrap(note, letters)]
    per_line = int(width / _LEGEND_ENTRY)

    rows, *shape, _ = grid.columns[0].pictures.shape
    plotted = any(isinstance(column, DistributionColumn) for column in grid.columns)
    captioned = any(isinstance(c, PictureColumn) and c.captions for c in grid.columns)
    lines = max(column.title.count('\n') + 1 for column in grid.columns)
    heights = [
        _TITLE + _LINE * (len(titles) - 1),
        _GROUP if any(column.group for column in grid.columns) else 0,
        0.16 * lines + 0.06,
        *[tile * shape[0] / shape[1], _CAPTION if captioned or plotted else _GAP] * rows,
        _AXIS if plotted or grid.curves else _GAP,
        _LINE * -(-len(grid.legend) // per_line),
        _LINE * len(notes),
    ]
    figure, spec = _figure(widths, heights)
    _write(figure, spec[0, :], '\n'.join(titles), fontsize=11)
    _write(figure, spec[-1, :], '\n'.join(notes), fontsize=8, linespacing=1.6)
    _draw_groups(figure, spec, grid, widths, cells)
    for column, cell in zip(grid.columns, cells, strict=False):
        axes = [figure.add_subplot(spec[3 + 2 * row, cell]) for row in range(rows)]
        axes[0].set_title(column.title, fontsize=8.5, color=INK, pad=5)
        draw = _draw_picture if isinstance(column, PictureColumn) else draw_rank_curves
        for row, ax in enumerate(axes):
            draw(ax, column, row)
    if grid.curves:
        _draw_curves(figure, spec[3 : 2 + 2 * rows, cells[-1]], grid.curves)
    if grid.legend:
        _draw_legend(_write(figure, spec[-2, :], ''), grid.legend, per_line)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure; the suffix names the format. Folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, facecolor='white')
    return path


def style_axes(ax: Axes) -> None:
    """Thin left and lower axes without a frame."""
    ax.spines[['top', 'right']].set_visible(False)
    ax.spines[['left', 'bottom']].set_color(FAINT)
    ax.tick_params(labelsize=7, colors=FAINT, labelcolor=INK, length=3)


def _columns(grid: ImageGrid, tile: float) -> tuple[list[float], list[int]]:
    """Widths of the cells of a row, gaps among them, and the cell of each column."""
    widths: list[float] = []
    cells, previous = [], None
    for column in grid.columns:
        if cells:
            widths.append(_GAP if column.group == previous else _GROUP_GAP)
        widths += [tile] if isinstance(column, PictureColumn) else [_TICKS, _PLOT]
        cells.append(len(widths) - 1)
        previous = column.group
    if grid.curves:
        widths += [_GROUP_GAP + _TICKS, _CURVES]
        cells.append(len(widths) - 1)
    # room for the notes
    return [*widths, max(0.0, _MIN_WIDTH - sum(widths))], cells


def _figure(widths: Sequence[float], heights: Sequence[float]) -> tuple[Figure, GridSpec]:
    """A figure of cells of these sizes, in inches, in a margin."""
    width, height = (sum(sizes) + 2 * _MARGIN for sizes in (widths, heights))
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=_MARGIN / width,
        right=1 - _MARGIN / width,
        bottom=_MARGIN / height,
        top=1 - _MARGIN / height,
        wspace=0,
        hspace=0,
    )
    spec = figure.add_gridspec(
        len(heights), len(widths), width_ratios=widths, height_ratios=heights
    )
    return figure, spec


def _write(figure: Figure, place: SubplotSpec, text: str, **style: Any) -> Axes:
    """Writes text into the upper left corner of an otherwise empty place."""
    ax = figure.add_subplot(place)
    ax.set_axis_off()
    ax.text(0, 1, text, transform=ax.transAxes, va='top', color=INK, **style)
    return ax


def _draw_groups(
    figure: Figure, spec: GridSpec, grid: ImageGrid, widths: Sequence[float], cells: Sequence[int]
) -> None:
    """Draws the headings of groups, each with a rule below."""
    members = zip(grid.columns, cells, strict=False)
    for name, group in groupby(members, key=lambda member: member[0].group):
        inside = list(group)
        (first, start), (_, stop) = inside[0], inside[-1]
        if not name:
            continue
        start -= isinstance(first, DistributionColumn)  # its ticks
        letters = int(sum(widths[start : stop + 1]) * _GROUP_LETTERS)
        text = textwrap.shorten(name, letters, placeholder='...')
        ax = _write(figure, spec[1, start : stop + 1], text, fontsize=9, weight='bold')
        ax.plot([0, 1], [0.15, 0.15], transform=ax.transAxes, color=FAINT, linewidth=0.8)


def _draw_picture(ax: Axes, column: PictureColumn, row: int) -> None:
    # Smooth where pictures are made smaller or a little larger; cells of features stay sharp.
    ax.imshow(column.pictures[row], interpolation='antialiased', aspect='auto')
    ax.set(xticks=[], yticks=[], frame_on=False)
    if column.captions:
        ax.set_xlabel(column.captions[row], fontsize=8, color=INK, labelpad=2)


def _draw_curves(figure: Figure, place: SubplotSpec, curves: Mapping[str, Curve]) -> None:
    panels = place.subgridspec(len(curves), 1, hspace=0.3).subplots(sharex=True, squeeze=False)
    for ax, (name, curve) in zip(panels[:, 0], curves.items(), strict=True):
        marker = 'o' if len(curve.steps) <= 12 else None
        ax.plot(curve.steps, curve.values, color=BLUE, linewidth=1.4, marker=marker, markersize=3)
        ax.set_title(name, fontsize=9, color=INK, loc='left', pad=4)
        ax.set_title(f'{curve.values[-1]:.3g}', fontsize=9, color=BLUE, loc='right', pad=4)
        style_axes(ax)
        ax.locator_params(axis='y', nbins=4)
        ax.margins(x=0.02)
    panels[-1, 0].set_xlabel('iteration', fontsize=8, color=INK)


def _draw_legend(ax: Axes, legend: Mapping[str, tuple[int, int, int]], per_line: int) -> None:
    ax.legend(
        handles=[Patch(color=np.divide(rgb, 255), label=name) for name, rgb in legend.items()],
        ncols=per_line,
        loc='upper left',
        fontsize=8,
        labelcolor=INK,
        handlelength=1,
        handleheight=1,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
    )


def draw_rank_curves(ax: Axes, column: DistributionColumn, row: int) -> None:
    """Draws one image's distributions over the teacher's ranks.

    The student's values of the thousands of entries jump; they are shown by their mean and the
    middle 80 % among entries of similar rank.
    """
    teacher, student = by_rank(column.teacher[row], column.student[row])
    centers, mean, low, high = binned(student, bins=_BINS)
    ax.fill_between(centers, low, high, color=ORANGE, alpha=0.25, linewidth=0)
    ax.plot(np.arange(1, len(teacher) + 1), teacher, color=BLUE, linewidth=1.6, label='teacher')
    ax.plot(centers, mean, color=ORANGE, linewidth=1.6, label='student')
    ax.axhline(1, color=FAINT, linewidth=0.7, linestyle=':')
    at = dict(transform=ax.transAxes, ha='right', va='top', fontsize=8.5, color=INK)
    ax.text(0.97, 0.95, f'r = {column.correlation[row]:.2f}', **at)
    if row == 0:
        ax.legend(fontsize=7.5, frameon=False, loc='upper right', bbox_to_anchor=(1, 0.86))
    ax.set(xscale='log', xlim=(1, len(teacher)))
    ax.set_ylim(bottom=0)
    ax.locator_params(axis='y', nbins=4)
    style_axes(ax)
    ax.tick_params(axis='x', which='minor', colors=FAINT, length=1.5)
    last = row == len(column.teacher) - 1
    ax.xaxis.set_major_formatter('{x:g}' if last else NullFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("teacher's rank" if last else '', fontsize=7.5, color=INK, labelpad=1)


def by_rank(
    teacher: NDArray[np.float64], student: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both distributions (K,), the teacher's largest entry first, as multiples of 1 / K."""
    order = np.argsort(-teacher, kind='stable')
    return teacher[order] * len(teacher), student[order] * len(student)


def binned(values: NDArray[np.float64], *, bins: int) -> NDArray[np.float64]:
    """(4, b): mean rank, from 1, and mean, 10th and 90th percentile of the values in each bin.

    Bins are of equal width on a logarithmic scale of ranks. They are fewer than ``bins``, since
    the first ranks have a bin of their own.

    Args:
        values: (K,), by rank.
        bins: number of bins.
    """
    edges = np.unique(np.rint(np.geomspace(1, len(values) + 1, bins + 1)).astype(int))
    statistics = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = values[start - 1 : stop - 1]
        statistics.append(((start + stop - 1) / 2, part.mean(), *np.percentile(part, (10, 90))))
    return np.array(statistics).T
