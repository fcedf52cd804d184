from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hgkd_mm.visualization import Curve, draw_quickstart_figure

ACCENT = (0x2B, 0x6C, 0xB0)


def inputs(batch: int = 2) -> dict:
    generator = torch.Generator().manual_seed(0)
    images = np.zeros((batch, 32, 32, 3), np.uint8)
    images[..., 0] = 250
    return dict(
        images=images,
        visible=torch.tensor([[True, False], [False, True]]).expand(batch, 2, 2),
        teacher_tokens=torch.randn(batch, 5, 4, 4, generator=generator),
        student_features=torch.randn(batch, 7, 2, 2, generator=generator),
    )


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture - colour).max(-1) <= 3).mean())


def test_picture_shows_images_masks_and_curves(tmp_path: Path) -> None:
    steps = np.arange(1, 101)
    curves = {'loss': Curve(steps, 1 / steps), 'knn': Curve(steps[::20], steps[::20] * 1.0)}
    path = draw_quickstart_figure(**inputs(), curves=curves, path=tmp_path / 'new' / 'p.png')
    picture = pixels(path)
    assert path == tmp_path / 'new' / 'p.png' and picture.shape[1] > picture.shape[0] > 300
    # Red in the whole of the first column and half of the second; grey in the other half.
    red, grey = share(picture, (250, 0, 0)), share(picture, (235, 235, 235))
    assert red == pytest.approx(3 * grey, rel=0.15) and red > 0.1
    assert share(picture, ACCENT) > 5e-4


def test_curves_may_be_absent(tmp_path: Path) -> None:
    picture = pixels(draw_quickstart_figure(**inputs(1), curves={}, path=tmp_path / 'p.png'))
    assert share(picture, ACCENT) < 1e-4


def test_shared_components_give_equal_features_equal_colours(tmp_path: Path) -> None:
    data = inputs(1)
    data['student_features'] = data['teacher_tokens'].clone()
    data['student_features'][:, :, :2] *= -1
    path = draw_quickstart_figure(**data, curves={}, path=tmp_path / 'p.png', share_components=True)
    picture = pixels(path)
    width = picture.shape[1] // 4
    teacher, student = picture[:, 2 * width : 3 * width], picture[:, 3 * width :]
    lower, upper = slice(-picture.shape[0] // 4, -30), slice(70, picture.shape[0] // 3)
    same = np.abs(teacher - student[:, :width]).max(-1) <= 3
    assert same[lower].mean() > 0.9 > same[upper].mean()
    data['student_features'] = torch.zeros(1, 9, 2, 2)
    with pytest.raises(ValueError, match='9 channels'):
        draw_quickstart_figure(**data, curves={}, path=tmp_path / 'p.png', share_components=True)


def test_batches_must_agree(tmp_path: Path) -> None:
    data = inputs(2)
    data['teacher_tokens'] = data['teacher_tokens'][:1]
    with pytest.raises(ValueError, match='2, 2, 1 and 2'):
        draw_quickstart_figure(**data, curves={}, path=tmp_path / 'p.png')
