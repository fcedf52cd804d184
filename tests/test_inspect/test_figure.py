from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hgkd_mm.inspect import Curve
from hgkd_mm.inspect.figure import (
    DistributionColumn,
    ImageGrid,
    PictureColumn,
    binned,
    by_rank,
    draw_grid,
    draw_rank_curves,
)

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0x2B, 0x6C, 0xB0)


def pictures(color: tuple[int, int, int], **kwargs: object) -> PictureColumn:
    return PictureColumn(title='t', pictures=np.full((2, 4, 8, 3), color, np.uint8), **kwargs)


def drawn(grid: ImageGrid, path: Path) -> np.ndarray:
    assert draw_grid(grid, path, title='a title') == path
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def filled(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in which a color fills more than a line."""
    flags = np.abs(picture - color).max(-1) <= 3
    return np.flatnonzero(flags.sum(1) > 50), np.flatnonzero(flags.sum(0) > 50)


def test_pictures_are_side_by_side_and_level_with_the_plots(tmp_path: Path) -> None:
    p = np.full((2, 20), 1 / 20)
    plot = DistributionColumn(group='h', title='t', teacher=p, student=p, correlation=np.zeros(2))
    grid = ImageGrid(columns=[pictures(RED), pictures(GREEN), plot])
    picture = drawn(grid, tmp_path / 'new' / 'p.png')
    (red_rows, red_columns), (green_rows, green_columns) = (
        filled(picture, color) for color in (RED, GREEN)
    )
    np.testing.assert_array_equal(red_rows, green_rows)
    assert red_columns.max() < green_columns.min()
    # 1.5 inches wide at 130 dpi, twice as wide as high, two rows.
    assert len(red_columns) == pytest.approx(195, abs=3)
    assert len(red_rows) == pytest.approx(195, abs=4)
    assert len(np.flatnonzero(np.diff(red_rows) > 1)) == 1


def test_notes_and_captions_make_room(tmp_path: Path) -> None:
    bare = drawn(ImageGrid(columns=[pictures(RED)]), tmp_path / 'a.png')
    notes = ['a sentence', 'word ' * 60]
    noted = drawn(ImageGrid(columns=[pictures(RED)], notes=notes), tmp_path / 'b.png')
    captioned = drawn(ImageGrid(columns=[pictures(RED, captions='xy')]), tmp_path / 'c.png')
    assert noted.shape[1] == captioned.shape[1] == bare.shape[1]
    assert noted.shape[0] - bare.shape[0] >= 4 * 0.17 * 130 - 1
    assert captioned.shape[0] > bare.shape[0]


def test_curves_are_right_of_the_pictures(tmp_path: Path) -> None:
    steps = np.arange(1, 101)
    curves = {'loss': Curve(steps, 1 / steps), 'knn': Curve(steps[::20], steps[::20] * 1.0)}
    picture = drawn(ImageGrid(columns=[pictures(RED)], curves=curves), tmp_path / 'p.png')
    accent = np.abs(picture - BLUE).max(-1) <= 3
    assert accent.mean() > 5e-4
    assert np.flatnonzero(accent.any(0)).min() > filled(picture, RED)[1].max()


def test_entries_are_in_the_teachers_order_and_in_units_of_the_average() -> None:
    teacher, student = by_rank(np.array([0.1, 0.6, 0.3, 0.0]), np.array([0.2, 0.4, 0.3, 0.1]))
    np.testing.assert_allclose(teacher, [2.4, 1.2, 0.4, 0.0])
    np.testing.assert_allclose(student, [1.6, 1.2, 0.8, 0.4])


def test_bins_cover_each_rank_once() -> None:
    values = np.random.default_rng(0).random(1000)
    ranks, means, low, high = binned(values, bins=30)
    assert ranks[0] == 1 and means[0] == low[0] == high[0] == values[0]
    assert (np.diff(ranks) > 0).all() and 10 < len(ranks) < 30
    # The last bin is the upper 1 / 30 of the logarithmic scale.
    last = values[round(1001 ** (29 / 30)) - 1 :]
    np.testing.assert_allclose(means[-1], last.mean())
    np.testing.assert_allclose([low[-1], high[-1]], np.percentile(last, (10, 90)))
    # fewer entries than bins
    ranks, means, _, _ = binned(np.array([3.0, 1.0]), bins=48)
    assert ranks.tolist() == [1, 2] and means.tolist() == [3, 1]


def test_rank_curves() -> None:
    teacher = np.array([[0.25, 0.75], [0.5, 0.5]])
    student, correlation = teacher[:, ::-1], np.array([-1, 0])
    column = DistributionColumn(
        title='t', teacher=teacher, student=student, correlation=correlation
    )
    ax = Figure().add_subplot()
    draw_rank_curves(ax, column, 0)
    by_label = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(by_label['teacher'], [1.5, 0.5])
    np.testing.assert_allclose(by_label['student'], [0.5, 1.5])
    assert [text.get_text() for text in ax.texts] == ['r = -1.00']
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ['teacher', 'student']
