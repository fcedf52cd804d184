"""Pictures of attention: curves over layers, and maps over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from hgkd_mm.visualization.sheet import FAINT, INK, Sheet
from hgkd_mm.visualization.view import Pictures, View
from hgkd_mm.visualization.view_figure import draw_view

from .attention import LayerAttention
from .layout import TokenLayout

_HEAD, _MEAN = '#7f9fc4', '#2b6cb0'
_QUERY = (0, 255, 255)
# Inches.
_MARGIN, _TITLE, _PLOT_WIDTH, _PLOT_HEIGHT, _TICKS = 0.15, 0.5, 4.0, 2.6, 0.65
_LETTERS = 110


def draw_curves(
    layers: Sequence[LayerAttention], path: str | Path, *, title: str, uniform: float
) -> Path:
    """Average attention distance and NMI over layers: a dot a head, a line for their mean.

    Args:
        layers: what `attention_curves` gives.
        path: file to write; its suffix names the format. Folders are made.
        title: line above it all.
        uniform: distance, in pixels, of a head that attends to all patches alike, which is
            drawn as a dotted line. Its NMI is 0.

    Returns:
        The path.
    """
    width = 2 * (_MARGIN + _TICKS + _PLOT_WIDTH) + _MARGIN
    sheet = Sheet(width=width, height=_TITLE + _PLOT_HEIGHT + _TICKS)
    sheet.write(_MARGIN, _MARGIN, title[-_LETTERS:], fontsize=10)
    named = (
        ('average attention distance, px', [layer.distance for layer in layers]),
        ('normalised mutual information', [layer.nmi for layer in layers]),
    )
    for index, (label, heads) in enumerate(named):
        left = _MARGIN + _TICKS + index * (_PLOT_WIDTH + _TICKS + _MARGIN)
        ax = sheet.axes(left, _TITLE, _PLOT_WIDTH, _PLOT_HEIGHT)
        _draw_curve(ax, [layer.block for layer in layers], heads, label)
        if index == 0:
            ax.axhline(uniform, color=INK, linewidth=1, linestyle=':', label='uniform attention')
            ax.legend(fontsize=7.5, frameon=False)
        # last, since it ends the choice of the upper end
        ax.set_ylim(bottom=0)
    return sheet.save(path)


def draw_maps(
    pictures: NDArray[np.uint8],
    maps: Mapping[int, Tensor],
    queries: Mapping[str, int],
    layout: TokenLayout,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Attention maps beside the images: a row an image, a column a query of a block.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        maps: what `attention_maps` gives of them and of the queries.
        queries: name to index of the token.
        layout: of the tokens.
        path: file to write; its suffix names the format. Folders are made.
        title: line above it all.

    Returns:
        The path.
    """
    view = View(columns=[Pictures(group='input', title='image', pictures=pictures)])
    for block, found in maps.items():
        for place, (name, token) in enumerate(queries.items()):
            weights = found[:, place].numpy()
            view.columns.append(
                Pictures(
                    group=f'block {block}',
                    title=name,
                    pictures=paint_maps(pictures, weights, token - layout.prefix),
                    captions=[f'max {one.max():.3f}' for one in weights],
                )
            )
    view.notes.append(
        'What the query (ROW,COLUMN of the patch grid, framed) attends to among the patches: mean '
        'over heads, each map from black to its maximum, which is below it; uniform attention '
        f'has {1 / layout.patches:.3f} everywhere.'
    )
    return draw_view(view, path, title=title)


def paint_maps(
    pictures: NDArray[np.uint8], weights: NDArray[np.float64], query: int
) -> NDArray[np.uint8]:
    """Maps of one query over their grey images.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        weights: (B, gh, gw), 0 or more.
        query: index of its patch in raster order, which is framed; below 0 for none.

    Returns:
        (B, H, W, 3) uint8.
    """
    height, width = pictures.shape[1:3]
    rows = np.arange(height) * weights.shape[1] // height
    columns = np.arange(width) * weights.shape[2] // width
    scaled = weights / weights.max((1, 2), keepdims=True)
    colours = matplotlib.colormaps['inferno'](scaled)[..., :3][:, rows][:, :, columns]
    grey = pictures.mean(3, keepdims=True) / 255
    painted = np.rint(255 * (0.35 * grey + 0.65 * colours)).astype(np.uint8)
    if query >= 0:
        row, column = divmod(query, weights.shape[2])
        inside = np.outer(rows == row, columns == column)
        core = inside.copy()
        thick = max(1, height // 100)
        for axis in (0, 1):
            for step in (-thick, thick):
                core &= np.roll(inside, step, axis)
        painted[:, inside & ~core] = _QUERY
    return painted


def _draw_curve(
    ax: Axes, blocks: Sequence[int], heads: Sequence[Sequence[float]], label: str
) -> None:
    for index, (block, values) in enumerate(zip(blocks, heads, strict=True)):
        ax.plot(
            [block] * len(values),
            values,
            linestyle='none',
            marker='o',
            markersize=4,
            alpha=0.6,
            color=_HEAD,
            label='head' if index == 0 else None,
        )
    means = [float(np.mean(values)) for values in heads]
    ax.plot(blocks, means, color=_MEAN, linewidth=1.8, label='mean of heads')
    ax.set_xticks(blocks if len(blocks) <= 16 else blocks[:: -(-len(blocks) // 12)])
    ax.set_xlabel('block', fontsize=8, color=INK)
    ax.set_ylabel(label, fontsize=8, color=INK)
    ax.spines[['top', 'right']].set_visible(False)
    ax.spines[['left', 'bottom']].set_color(FAINT)
    ax.tick_params(labelsize=7.5, colors=FAINT, labelcolor=INK, length=3)
