"""The picture that the quickstart leaves behind."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from .images import hide_cells
from .pca import FeaturePCA, match_colours, pca_to_rgb
from .scalars import Curve

_INK = '#1f2933'
_FAINT = '#9aa5b1'
_ACCENT = '#2b6cb0'
_TILE = 1.55  # inches


def draw_quickstart_figure(
    *,
    images: NDArray[np.uint8],
    visible: Tensor,
    teacher_tokens: Tensor,
    student_features: Tensor,
    curves: Mapping[str, Curve],
    path: str | Path,
    title: str | None = None,
    share_components: bool = False,
) -> Path:
    """Draw images, masks, teacher and student features, and curves into one file.

    One row an image: image, what the student sees of it, the teacher's tokens, and
    the student's features; features as their first three principal components,
    shared by all rows; the student's are brought close to the teacher's colours
    (``match_colours``). Beside them one small panel a curve. Drawn without pyplot,
    so neither a display nor global state is needed.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        visible: (B, gh, gw) bool, True = visible.
        teacher_tokens: (B, D, h, w).
        student_features: (B, C, h', w').
        curves: Title to curve, in the order to draw them; may be empty.
        path: File to write; its suffix names the format.
        title: Line above it all.
        share_components: Paint the student with the teacher's components, for
            features in the teacher's space (C = D): equal colours then mean equal
            features.

    Returns:
        The path.

    Raises:
        ValueError: The batches differ in size, or ``share_components`` and C != D.
    """
    sizes = [len(images), len(visible), len(teacher_tokens), len(student_features)]
    if len(set(sizes)) != 1:
        raise ValueError(
            f'Images, masks, teacher tokens and student features should be of the same images, '
            f'but there are {sizes[0]}, {sizes[1]}, {sizes[2]} and {sizes[3]}.'
        )
    if share_components:
        components = FeaturePCA(teacher_tokens)
        teacher, student = components.to_rgb(teacher_tokens), components.to_rgb(student_features)
    else:
        teacher = pca_to_rgb(teacher_tokens)
        student = match_colours(pca_to_rgb(student_features), teacher)
    columns = {
        'image': images,
        'what the student sees': hide_cells(images, visible),
        'teacher features': teacher,
        'student features': student,
    }
    height = _TILE * len(images) * images.shape[1] / images.shape[2]
    figure, panels, plots = _layout(height, with_curves=bool(curves), title=title)
    _draw_images(panels, columns)
    if plots is not None:
        _draw_curves(plots, curves)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, facecolor='white')
    return path


def _layout(
    height: float, *, with_curves: bool, title: str | None
) -> tuple[Figure, SubFigure, SubFigure | None]:
    widths = [4 * _TILE + 0.2, 3.7] if with_curves else [4 * _TILE + 0.2]
    figure = Figure(figsize=(sum(widths), height + (0.7 if title else 0.4)))
    figure.set_layout_engine(
        'constrained', rect=(0.005, 0.005, 0.99, 0.99), h_pad=0.02, w_pad=0.03, hspace=0, wspace=0
    )
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK, x=0.012, ha='left')
    parts = figure.subfigures(1, len(widths), width_ratios=widths, wspace=0.04, squeeze=False)[0]
    return figure, parts[0], parts[1] if with_curves else None


def _draw_images(figure: SubFigure, columns: Mapping[str, NDArray[np.uint8]]) -> None:
    rows = len(next(iter(columns.values())))
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=9, color=_INK, pad=4)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture, interpolation='nearest')
            axes[row, column].set_axis_off()


def _draw_curves(figure: SubFigure, curves: Mapping[str, Curve]) -> None:
    grid = dict(hspace=0.12)
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for ax, (name, curve) in zip(axes, curves.items(), strict=True):
        _draw_curve(ax, name, curve)
    axes[-1].set_xlabel('iteration', fontsize=8, color=_INK)


def _draw_curve(ax: Axes, name: str, curve: Curve) -> None:
    marker = 'o' if len(curve.steps) <= 12 else None
    ax.plot(curve.steps, curve.values, color=_ACCENT, linewidth=1.4, marker=marker, markersize=3)
    ax.set_title(name, fontsize=9, color=_INK, loc='left', pad=4)
    if len(curve.values):
        ax.set_title(f'{curve.values[-1]:.3g}', fontsize=9, color=_ACCENT, loc='right', pad=4)
    ax.spines[['top', 'right']].set_visible(False)
    ax.spines[['left', 'bottom']].set_color(_FAINT)
    ax.tick_params(labelsize=7, colors=_FAINT, labelcolor=_INK, length=3)
    ax.locator_params(axis='y', nbins=4)
    ax.margins(x=0.02)
