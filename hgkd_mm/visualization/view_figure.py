"""A view as one picture file."""

from __future__ import annotations

import textwrap
from itertools import groupby
from pathlib import Path

from .rank_curves import draw_rank_curves
from .sheet import Sheet
from .view import Distributions, Pictures, View

# Inches.
_MARGIN, _GAP, _GROUP_GAP, _LEAST_WIDTH = 0.15, 0.08, 0.3, 6.0
_PLOT, _PLOT_TICKS, _PLOT_AXIS = 2.7, 0.36, 0.3
_TITLE, _GROUP, _CAPTION, _NOTE = 0.36, 0.24, 0.2, 0.17
_COLUMN = 0.16  # a line of a column's title
_ENTRY, _PATCH = 0.95, 0.11
# Letters per inch, at their sizes.
_TITLE_LETTERS, _GROUP_LETTERS, _NOTE_LETTERS = 12.0, 14.0, 16.5


def draw_view(view: View, path: str | Path, *, title: str, tile: float = 1.5) -> Path:
    """Draws a view: headings above, one row an image, legend and notes below.

    Args:
        view: what to show; at least one of its columns has pictures.
        path: file to write; its suffix names the format. Folders are made.
        title: line above it all.
        tile: width of a picture, in inches.

    Returns:
        The path.

    Raises:
        ValueError: the columns differ in their number of images, or matplotlib knows no format
            of that suffix.
    """
    return _Page(view, title, tile).drawn().save(path)


class _Page:
    """Where everything goes, in inches from the upper left corner."""

    def __init__(self, view: View, title: str, tile: float) -> None:
        self.view, self.rows = view, view.rows
        first = next(column for column in view.columns if isinstance(column, Pictures))
        self.tile = tile, tile * first.pictures.shape[1] / first.pictures.shape[2]
        self.lefts = self._lefts()
        right = self.lefts[-1] + self._width(view.columns[-1])
        inside = max(right, _LEAST_WIDTH) - _MARGIN
        self.width = inside + 2 * _MARGIN
        self.title = _end_of(title, int(inside * _TITLE_LETTERS))
        letters = int(inside * _NOTE_LETTERS)
        self.notes = [line for note in view.notes for line in textwrap.wrap(note, letters)]
        self.per_line = int(inside / _ENTRY)

        plotted = any(isinstance(column, Distributions) for column in view.columns)
        captioned = any(isinstance(c, Pictures) and c.captions for c in view.columns)
        grouped = any(column.group for column in view.columns)
        lines = max(column.title.count('\n') + 1 for column in view.columns)
        headings = (_GROUP if grouped else 0) + lines * _COLUMN + 0.06
        self.first_row = _MARGIN + _TITLE + headings
        self.step = self.tile[1] + (_CAPTION if captioned or plotted else _GAP)
        below = self.first_row + self.rows * self.step
        self.legend = below + (_PLOT_AXIS if plotted else _GAP)
        self.first_note = self.legend + _NOTE * -(-len(view.legend) // self.per_line)
        self.height = self.first_note + _NOTE * len(self.notes) + _MARGIN

    def drawn(self) -> Sheet:
        sheet = Sheet(width=self.width, height=self.height)
        sheet.write(_MARGIN, _MARGIN, self.title, fontsize=11)
        self._write_groups(sheet)
        for column, left in zip(self.view.columns, self.lefts, strict=True):
            at = left + self._width(column) / 2, self.first_row - 0.06
            sheet.write(*at, column.title, fontsize=8.5, ha='center', va='bottom')
            for row in range(self.rows):
                top = self.first_row + row * self.step
                if isinstance(column, Pictures):
                    _draw_picture(sheet, column, row, (left, top, *self.tile))
                else:
                    box = left + _PLOT_TICKS, top, _PLOT - _PLOT_TICKS, self.tile[1] - 0.04
                    draw_rank_curves(sheet.axes(*box), column, row, last=row == self.rows - 1)
        for index, (name, colour) in enumerate(self.view.legend.items()):
            line, place = divmod(index, self.per_line)
            left, top = _MARGIN + place * _ENTRY, self.legend + line * _NOTE
            sheet.patch(left, top + 0.01, _PATCH, colour)
            sheet.write(left + _PATCH + 0.05, top, name, fontsize=8)
        for index, note in enumerate(self.notes):
            sheet.write(_MARGIN, self.first_note + index * _NOTE, note, fontsize=8)
        return sheet

    def _write_groups(self, sheet: Sheet) -> None:
        top = _MARGIN + _TITLE
        members = zip(self.view.columns, self.lefts, strict=True)
        for name, group in groupby(members, key=lambda member: member[0].group):
            inside = list(group)
            left, (last, start) = inside[0][1], inside[-1]
            right = start + self._width(last)
            if name:
                heading = _beginning_of(name, int((right - left) * _GROUP_LETTERS))
                sheet.write(left, top, heading, fontsize=9, weight='bold')
                sheet.rule(left, right, top + _GROUP - 0.04)

    def _lefts(self) -> list[float]:
        """Left edge of each column."""
        lefts, edge, previous = [], _MARGIN, None
        for column in self.view.columns:
            if previous is not None:
                edge += _GAP if previous == column.group else _GROUP_GAP
            lefts.append(edge)
            edge += self._width(column)
            previous = column.group
        return lefts

    def _width(self, column: Pictures | Distributions) -> float:
        return self.tile[0] if isinstance(column, Pictures) else _PLOT


def _draw_picture(
    sheet: Sheet, column: Pictures, row: int, box: tuple[float, float, float, float]
) -> None:
    left, top, width, height = box
    ax = sheet.axes(*box)
    # Smooth where pictures are made smaller or a little larger; cells of features stay sharp.
    ax.imshow(column.pictures[row], interpolation='antialiased', aspect='auto')
    ax.set_axis_off()
    if column.captions:
        at = left + width / 2, top + height + 0.03
        sheet.write(*at, column.captions[row], fontsize=8, ha='center')


def _end_of(title: str, letters: int) -> str:
    """What of a title fits: of a long path the end tells more than the beginning."""
    return title if len(title) <= letters else f'...{title[3 - letters :]}'


def _beginning_of(heading: str, letters: int) -> str:
    return heading if len(heading) <= letters else f'{heading[: letters - 3]}...'
