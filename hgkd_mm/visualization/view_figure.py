"""A view as one picture file."""

from __future__ import annotations

import textwrap
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .rank_curves import draw_rank_curves
from .view import Distributions, Pictures, View

_INK, _FAINT = '#1f2933', '#9aa5b1'
# All places and sizes below are in inches.
_MARGIN, _GAP, _GROUP_GAP = 0.15, 0.08, 0.3
_TILE, _PLOT, _PLOT_TICKS, _PLOT_AXIS = 1.5, 2.7, 0.36, 0.3
_TITLE, _GROUP, _COLUMN, _CAPTION, _NOTE = 0.36, 0.24, 0.38, 0.2, 0.17
_TITLE_LETTERS, _NOTE_LETTERS = 12.0, 16.5  # per inch, at their sizes
_DPI = 130


class _Sheet:
    """A figure whose places are inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)

    def write(self, left: float, top: float, text: str, **style: object) -> None:
        """Text whose upper edge is at ``top``, unless ``va`` says otherwise."""
        at = left / self.width, 1 - top / self.height
        self.figure.text(*at, text, **{'color': _INK, 'va': 'top', **style})

    def rule(self, left: float, right: float, top: float) -> None:
        y = 1 - top / self.height
        ends = [left / self.width, right / self.width]
        self.figure.add_artist(Line2D(ends, [y, y], color=_FAINT, linewidth=0.8))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = 1 - (top + height) / self.height
        box = left / self.width, bottom, width / self.width, height / self.height
        return self.figure.add_axes(box)


def draw_view(view: View, path: str | Path, *, title: str) -> Path:
    """Draws a view: headings above, one row an image, notes below.

    Drawn without pyplot, so neither a display nor global state is needed.

    Args:
        view: what to show.
        path: file to write; its suffix names the format. Folders are made.
        title: line above it all.

    Returns:
        The path.

    Raises:
        ValueError: the columns differ in their number of images, or matplotlib knows no format
            of that suffix.
    """
    rows, tile, lefts = view.rows, _tile_height(view), _lefts(view)
    width = max(lefts[-1] + _width(view.columns[-1]) + _MARGIN, 6.0)
    notes = _wrapped(view.notes, width - 2 * _MARGIN)
    plotted = any(isinstance(column, Distributions) for column in view.columns)
    captioned = plotted or any(getattr(column, 'captions', ()) for column in view.columns)
    first_row = _MARGIN + _TITLE + _GROUP + _COLUMN
    step = tile + (_CAPTION if captioned else _GAP)
    first_note = first_row + rows * step + (_PLOT_AXIS if plotted else _GAP)
    sheet = _Sheet(width, first_note + len(notes) * _NOTE + _MARGIN)

    sheet.write(_MARGIN, _MARGIN, _end_of(title, width - 2 * _MARGIN), fontsize=11)
    _write_groups(sheet, view, lefts)
    for column, left in zip(view.columns, lefts, strict=True):
        centre = left + _width(column) / 2
        sheet.write(centre, first_row - 0.06, column.title, fontsize=8.5, ha='center', va='bottom')
        for row in range(rows):
            top = first_row + row * step
            if isinstance(column, Pictures):
                _draw_picture(sheet, column, row, (left, top, _TILE, tile))
            else:
                box = left + _PLOT_TICKS, top, _PLOT - _PLOT_TICKS, tile - 0.04
                draw_rank_curves(sheet.axes(*box), column, row, last=row == rows - 1)
    for index, note in enumerate(notes):
        sheet.write(_MARGIN, first_note + index * _NOTE, note, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.figure.savefig(path, dpi=_DPI, facecolor='white')
    return path


def _draw_picture(
    sheet: _Sheet, column: Pictures, row: int, box: tuple[float, float, float, float]
) -> None:
    left, top, width, height = box
    ax = sheet.axes(*box)
    ax.imshow(column.pictures[row], interpolation='nearest', aspect='auto')
    ax.set_axis_off()
    if column.captions:
        at = left + width / 2, top + height + 0.03
        sheet.write(*at, column.captions[row], fontsize=8, ha='center')


def _write_groups(sheet: _Sheet, view: View, lefts: list[float]) -> None:
    top = _MARGIN + _TITLE
    members = zip(view.columns, lefts, strict=True)
    for name, group in groupby(members, key=lambda member: member[0].group):
        inside = list(group)
        left, (last, start) = inside[0][1], inside[-1]
        sheet.write(left, top, name, fontsize=9, weight='bold')
        sheet.rule(left, start + _width(last), top + _GROUP - 0.04)


def _lefts(view: View) -> list[float]:
    """Left edge of each column."""
    lefts, edge, previous = [], _MARGIN, None
    for column in view.columns:
        if previous is not None:
            edge += _GAP if previous == column.group else _GROUP_GAP
        lefts.append(edge)
        edge += _width(column)
        previous = column.group
    return lefts


def _width(column: Pictures | Distributions) -> float:
    return _TILE if isinstance(column, Pictures) else _PLOT


def _tile_height(view: View) -> float:
    """That of the first pictures, whose shape is the images'."""
    first = next(column for column in view.columns if isinstance(column, Pictures))
    return _TILE * first.pictures.shape[1] / first.pictures.shape[2]


def _end_of(title: str, width: float) -> str:
    """What of a title fits: of a long path the end tells more than the beginning."""
    room = int(width * _TITLE_LETTERS)
    return title if len(title) <= room else f'...{title[3 - room :]}'


def _wrapped(notes: list[str], width: float) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, int(width * _NOTE_LETTERS))]
