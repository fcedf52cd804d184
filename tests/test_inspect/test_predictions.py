from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from hgkd_mm.inspect import draw_predictions
from hgkd_mm.inspect.predictions import class_colors, paint_instances, paint_semantic

NAMES = ('background', 'cat', 'dog')
COLORS = [(200, 200, 200), (250, 0, 0), (0, 0, 250)]
GREY = np.full((32, 64, 3), 100, np.uint8)


def squares(*objects: tuple[int, int], scores: list[float] | None = None) -> InstanceData:
    """Objects of 16 x 16 px, 8 px from the top, each with its left edge and its label."""
    boxes = [[left, 8, left + 16, 24] for left, _ in objects]
    masks = torch.zeros(len(objects), 32, 64)
    for mask, (left, _) in zip(masks, objects, strict=True):
        mask[8:24, left : left + 16] = 1
    found = InstanceData(
        bboxes=torch.tensor(boxes).float().reshape(-1, 4),
        masks=masks.bool(),
        labels=torch.tensor([label for _, label in objects]).long(),
    )
    if scores is not None:
        found.scores = torch.tensor(scores)
    return found


def painted(found: InstanceData) -> np.ndarray:
    return paint_instances(GREY, found, NAMES, COLORS).astype(int)


def test_masks_are_mixed_with_the_image_and_boxes_are_not() -> None:
    picture = painted(squares((24, 1)))
    assert picture.shape == (256, 512, 3)
    # Away from the box and its name; 8 drawn pixels to one of the image.
    assert (np.abs(picture[150:180, 260:300] - (175, 50, 50)) <= 2).all()
    np.testing.assert_array_equal(picture[10:50, 10:100], 100)
    # The left edge of the box, at 24 * 8 px.
    assert (np.abs(picture[150:180, 190:195] - (250, 0, 0)).max(-1) <= 20).any(axis=1).all()
    np.testing.assert_array_equal(painted(squares()), 100)


@pytest.mark.parametrize(('cat', 'dog'), [(0.2, 0.9), (0.9, 0.2)])
def test_the_best_score_is_on_top(cat: float, dog: float) -> None:
    picture = painted(squares((20, 1), (28, 2), scores=[cat, dog]))
    both = picture[150:180, 260:280].reshape(-1, 3).mean(0)
    assert (both[2] > both[0]) == (dog > cat)


def test_names_are_written_in_the_color_of_their_class() -> None:
    label = painted(squares((24, 1), scores=[0.5]))[66:80, 196:210]
    assert (np.abs(label - (250, 0, 0)).max(-1) <= 8).mean() > 0.3
    assert (label.min(-1) > 200).any()  # white letters


def test_semantic_maps_are_mixed_with_the_image() -> None:
    labels = np.zeros((32, 64), np.int64)
    labels[:, 10:20], labels[:, 20:30], labels[:, 30:40] = 2, -1, 255
    picture = paint_semantic(GREY, labels, COLORS).astype(int)
    expected = np.full((32, 64, 3), 170)
    expected[:, 10:20] = (30, 30, 205)
    expected[:, 20:40] = 100
    np.testing.assert_allclose(picture, expected, atol=1)
    unlabelled = paint_semantic(GREY, np.full((32, 64), 255), COLORS)
    np.testing.assert_array_equal(unlabelled, GREY)


@pytest.mark.parametrize('count', [2, 12, 18, 40, 150])
def test_classes_have_colors_of_their_own(count: int) -> None:
    names = [f'class {i}' for i in range(count)]
    colors = class_colors(names)
    assert len(set(colors)) == count and (np.array(colors) >= 0).all()
    assert class_colors(['background', *names])[1:] == colors


def drawn(path: Path, images: list, **columns: list) -> np.ndarray:
    settings = dict(title='a title', class_names=NAMES)
    assert draw_predictions(images=images, columns=columns, path=path, **settings) == path
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def near(picture: np.ndarray, color: np.ndarray | tuple, tolerance: int = 3) -> np.ndarray:
    return np.abs(picture - color).max(-1) <= tolerance


def test_a_row_per_image_and_a_column_per_model(tmp_path: Path) -> None:
    maps = [np.ones((32, 64), int), np.full((32, 64), 2)]
    picture = drawn(tmp_path / 'new' / 's.png', [GREY, GREY], truth=maps, model=maps[::-1])
    background, *foreground = class_colors(NAMES)
    flags = [near(picture, 0.3 * GREY[0, 0] + 0.7 * np.array(color)) for color in foreground]
    # Each tile is 2.2 inches wide at 130 dpi and half as high.
    for flag in flags:
        assert flag.sum() == pytest.approx(2 * 286 * 143, rel=0.03)
    # Their columns and rows cross.
    centers = [[np.argwhere(f[:, half]).mean(0)[0] for half in _halves(f)] for f in flags]
    assert centers[0][0] < centers[0][1] and centers[1][0] > centers[1][1]
    # Both classes, and no other, have a patch in the legend.
    for color in foreground:
        assert 50 < near(picture, color, 1).sum() < 400
    assert near(picture, background).mean() < 1e-4


def _halves(flag: np.ndarray) -> tuple[slice, slice]:
    columns = np.flatnonzero(flag.any(0))
    middle = (columns[0] + columns[-1]) // 2
    return slice(0, middle), slice(middle, None)


def test_instances_next_to_their_image(tmp_path: Path) -> None:
    picture = drawn(tmp_path / 'i.png', [GREY], truth=[squares((24, 1))], nothing=[squares()])
    assert picture.shape[1] == pytest.approx(130 * (3 * 2.2 + 2 * 0.08 + 2 * 0.15), abs=2)
    mixed = (GREY[0, 0] + np.array(class_colors(NAMES)[1])) / 2
    assert near(picture, mixed).mean() > 0.01
