from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgkd_mm.visualization import Instances, draw_instances, draw_semantic
from hgkd_mm.visualization.predictions import class_colours, paint_instances, paint_semantic

NAMES = ('background', 'cat', 'dog')
COLOURS = [(200, 200, 200), (250, 0, 0), (0, 0, 250)]
GREY = np.full((32, 64, 3), 100, np.uint8)


def square(left: int, label: int, score: float | None = None) -> Instances:
    """One object: 16 x 16 px, 8 px from the top."""
    mask = np.zeros((1, 32, 64), bool)
    mask[0, 8:24, left : left + 16] = True
    return Instances(
        boxes=np.array([[left, 8, left + 16, 24]], np.float32),
        masks=mask,
        labels=np.array([label]),
        scores=None if score is None else np.array([score]),
    )


def joined(*found: Instances) -> Instances:
    def all_of(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in found])

    return Instances(**{name: all_of(name) for name in ('boxes', 'masks', 'labels', 'scores')})


def nothing() -> Instances:
    return Instances(
        boxes=np.zeros((0, 4)), masks=np.zeros((0, 32, 64), bool), labels=np.zeros(0, int)
    )


def painted(found: Instances) -> np.ndarray:
    return paint_instances(GREY, found, class_names=NAMES, colours=COLOURS).astype(int)


def test_masks_are_mixed_with_the_image_and_boxes_are_not() -> None:
    picture = painted(square(24, 1))
    assert picture.shape == (256, 512, 3)
    # Away from the box and its name; 8 drawn pixels to one of the image.
    assert (np.abs(picture[150:180, 260:300] - (175, 50, 50)) <= 2).all()
    np.testing.assert_array_equal(picture[10:50, 10:100], 100)
    # The left edge of the box, at 24 * 8 px.
    assert (np.abs(picture[150:180, 190:195] - (250, 0, 0)).max(-1) <= 20).any(axis=1).all()


def test_the_best_score_is_on_top() -> None:
    for cat, dog, red_below_blue in ((0.2, 0.9, True), (0.9, 0.2, False)):
        picture = painted(joined(square(20, 1, cat), square(28, 2, dog)))
        both = picture[150:180, 260:280].reshape(-1, 3).mean(0)
        assert (both[2] > both[0]) == red_below_blue


def test_names_are_written_in_the_colour_of_their_class() -> None:
    with_name = painted(square(24, 1, 0.5))
    label = with_name[66:80, 196:210]
    assert (np.abs(label - (250, 0, 0)).max(-1) <= 8).mean() > 0.3
    assert (label.min(-1) > 200).any()  # white letters


def test_nothing_found_leaves_the_image() -> None:
    np.testing.assert_array_equal(painted(nothing()), 100)


def test_objects_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r'Labels are 0 to 2.*\[3\]'):
        painted(square(0, 3))
    with pytest.raises(ValueError, match=r'masks of shape \(1, 32, 64\), got \(1, 16, 16\)'):
        painted(
            Instances(
                boxes=np.zeros((1, 4)), masks=np.zeros((1, 16, 16), bool), labels=np.zeros(1, int)
            )
        )


def test_semantic_maps_are_mixed_with_the_image() -> None:
    labels = np.zeros((32, 64), np.int64)
    labels[:, 10:20], labels[:, 20:30], labels[:, 30:40] = 2, -1, 255
    picture = paint_semantic(GREY, labels, colours=COLOURS).astype(int)
    expected = np.full((32, 64, 3), 170)
    expected[:, 10:20] = (30, 30, 205)
    expected[:, 20:40] = 100
    np.testing.assert_allclose(picture, expected, atol=1)
    unlabelled = paint_semantic(GREY, np.full((32, 64), 255), colours=COLOURS)
    np.testing.assert_array_equal(unlabelled, GREY)
    with pytest.raises(ValueError, match=r'\(4, 4\) does not fit an image of 32 x 64'):
        paint_semantic(GREY, np.zeros((4, 4), int), colours=COLOURS)


@pytest.mark.parametrize('count', [2, 12, 18, 40, 150])
def test_classes_have_colours_of_their_own(count: int) -> None:
    names = [f'class {i}' for i in range(count)]
    colours = class_colours(names)
    assert len(set(colours)) == count and (np.array(colours) >= 0).all()
    assert class_colours(['background', *names])[1:] == colours


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def share(picture: np.ndarray, colour: tuple[int, int, int] | np.ndarray) -> float:
    return float((np.abs(picture - colour).max(-1) <= 3).mean())


def test_a_row_an_image_and_a_column_a_model(tmp_path: Path) -> None:
    maps = [np.ones((32, 64), int), np.full((32, 64), 2)]
    path = draw_semantic(
        images=[GREY, GREY],
        columns=dict(truth=maps, model=maps[::-1]),
        path=tmp_path / 'new' / 's.png',
        title='a title',
        class_names=NAMES,
    )
    picture = read(path)
    assert path == tmp_path / 'new' / 's.png'
    cat, dog = (0.3 * GREY[0, 0] + 0.7 * np.array(c) for c in class_colours(NAMES)[1:])
    flags = [(np.abs(picture - colour).max(-1) <= 3) for colour in (cat, dog)]
    # Each tile is 2.2 inches wide at 130 dpi and half as high.
    for flag in flags:
        assert flag.sum() == pytest.approx(2 * 286 * 143, rel=0.03)
    # Their columns and rows cross.
    centres = [[np.argwhere(f[:, half]).mean(0)[0] for half in _halves(f)] for f in flags]
    assert centres[0][0] < centres[0][1] and centres[1][0] > centres[1][1]
    # Both classes, and no other, have a patch in the legend.
    for colour in class_colours(NAMES)[1:]:
        assert 50 < (np.abs(picture - colour).max(-1) <= 1).sum() < 400
    assert share(picture, class_colours(NAMES)[0]) < 1e-4


def _halves(flag: np.ndarray) -> tuple[slice, slice]:
    columns = np.flatnonzero(flag.any(0))
    middle = (columns[0] + columns[-1]) // 2
    return slice(0, middle), slice(middle, None)


def test_instances_beside_their_image(tmp_path: Path) -> None:
    path = draw_instances(
        images=[GREY],
        columns={'truth': [square(24, 1)], 'found nothing': [nothing()]},
        path=tmp_path / 'i.png',
        title='a title',
        class_names=NAMES,
    )
    picture = read(path)
    assert picture.shape[1] == pytest.approx(130 * (3 * 2.2 + 2 * 0.08 + 2 * 0.15), abs=2)
    mixed = (GREY[0, 0] + np.array(class_colours(NAMES)[1])) / 2
    assert share(picture, mixed) > 0.01


@pytest.mark.parametrize('draw', [draw_instances, draw_semantic])
def test_images_must_agree(draw: object, tmp_path: Path) -> None:
    settings = dict(path=tmp_path / 'p.png', title='t', class_names=NAMES)
    with pytest.raises(ValueError, match="Column 'a' is of 0 images, but there are 1"):
        draw(images=[GREY], columns=dict(a=[]), **settings)
    with pytest.raises(ValueError, match='images of one size'):
        draw(images=[GREY, GREY[:8]], columns={}, **settings)
