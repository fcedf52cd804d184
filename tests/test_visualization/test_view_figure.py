from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgkd_mm.visualization import Distributions, Pictures, View, draw_view

RED, GREEN = (250, 0, 0), (0, 250, 0)


def pictures(colour: tuple[int, int, int], rows: int = 2, **kwargs: object) -> Pictures:
    settings = dict(group='g', title='t') | kwargs
    return Pictures(pictures=np.full((rows, 4, 8, 3), colour, np.uint8), **settings)


def distributions(rows: int = 2) -> Distributions:
    p = np.full((rows, 20), 1 / 20)
    return Distributions(group='h', title='t', teacher=p, student=p, correlation=np.zeros(rows))


def drawn(view: View, path: Path) -> np.ndarray:
    assert draw_view(view, path, title='a title') == path
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def rows_of(colour: tuple[int, int, int], picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in which a colour fills more than a line."""
    flags = np.abs(picture - colour).max(-1) <= 3
    return np.flatnonzero(flags.sum(1) > 50), np.flatnonzero(flags.sum(0) > 50)


def test_pictures_are_side_by_side_and_level_with_the_plots(tmp_path: Path) -> None:
    view = View(columns=[pictures(RED), pictures(GREEN), distributions()])
    picture = drawn(view, tmp_path / 'new' / 'p.png')
    (red_rows, red_columns), (green_rows, green_columns) = (
        rows_of(colour, picture) for colour in (RED, GREEN)
    )
    np.testing.assert_array_equal(red_rows, green_rows)
    assert red_columns.max() < green_columns.min()
    # 1.5 inches wide at 130 dpi, twice as wide as high, two rows.
    assert len(red_columns) == pytest.approx(195, abs=3)
    assert len(red_rows) == pytest.approx(195, abs=4)
    assert len(np.flatnonzero(np.diff(red_rows) > 1)) == 1


def test_notes_and_captions_make_room(tmp_path: Path) -> None:
    bare = drawn(View(columns=[pictures(RED)]), tmp_path / 'a.png')
    noted = drawn(
        View(columns=[pictures(RED)], notes=['a sentence', 'word ' * 60]), tmp_path / 'b.png'
    )
    captioned = drawn(View(columns=[pictures(RED, captions=['x', 'y'])]), tmp_path / 'c.png')
    assert noted.shape[1] == captioned.shape[1] == bare.shape[1]
    assert noted.shape[0] - bare.shape[0] >= 4 * 0.17 * 130 - 1
    assert captioned.shape[0] > bare.shape[0]


def test_a_view_knows_its_rows() -> None:
    assert View(columns=[pictures(RED, 3), distributions(3)]).rows == 3
    with pytest.raises(ValueError, match=r'\[2, 3\] rows'):
        _ = View(columns=[pictures(RED, 3), distributions(2)]).rows
