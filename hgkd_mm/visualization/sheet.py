"""A figure laid out in inches."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

INK, FAINT = '#1f2933', '#9aa5b1'
_DPI = 130


class Sheet:
    """A figure whose places are inches from its upper left corner.

    So rows of pictures and of plots are level, whatever text is around them. Made without
    pyplot: neither a display nor global state is needed.

    Args:
        width: inches.
        height: the same.
    """

    def __init__(self, *, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self._figure)

    def write(self, left: float, top: float, text: str, **style: object) -> None:
        """Text whose upper edge is at ``top``, unless ``va`` says otherwise."""
        at = left / self.width, 1 - top / self.height
        self._figure.text(*at, text, **{'color': INK, 'va': 'top', **style})

    def rule(self, left: float, right: float, top: float) -> None:
        """A thin horizontal line."""
        y = 1 - top / self.height
        ends = [left / self.width, right / self.width]
        self._figure.add_artist(Line2D(ends, [y, y], color=FAINT, linewidth=0.8))

    def patch(self, left: float, top: float, side: float, colour: tuple[int, int, int]) -> None:
        """A square of a colour (R, G, B)."""
        corner = left / self.width, 1 - (top + side) / self.height
        face = tuple(channel / 255 for channel in colour)
        size = side / self.width, side / self.height
        self._figure.add_artist(Rectangle(corner, *size, facecolor=face))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes that fill a box."""
        bottom = 1 - (top + height) / self.height
        box = left / self.width, bottom, width / self.width, height / self.height
        return self._figure.add_axes(box)

    def save(self, path: str | Path) -> Path:
        """Writes the figure; the suffix names the format. Folders are made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._figure.savefig(path, dpi=_DPI, facecolor='white')
        return path
