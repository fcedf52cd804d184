import numpy as np
import pytest
import torch

from hgkd_mm.visualization import denormalize, hide_cells


def test_denormalize_undoes_normalisation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    normalised = (pixels.astype(np.float32) - mean) / std
    images = torch.from_numpy(normalised).permute(0, 3, 1, 2).float()
    np.testing.assert_array_equal(denormalize(images, mean, std), pixels)
    assert denormalize(images * 100, mean, std).max() == 255


def test_hidden_cells_are_covered_and_visible_ones_untouched() -> None:
    images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    visible = torch.tensor([[[True, False, True]], [[False, True, True]]])
    covered = hide_cells(images, visible, fill=9)
    for image, hidden in ((0, slice(2, 4)), (1, slice(0, 2))):
        assert (covered[image, :, hidden] == 9).all()
        kept = np.delete(np.arange(6), hidden)
        np.testing.assert_array_equal(covered[image][:, kept], images[image][:, kept])


def test_grid_must_divide_the_image() -> None:
    with pytest.raises(ValueError, match='5 x 6 px.*2 x 3 cells'):
        hide_cells(np.zeros((1, 5, 6, 3), np.uint8), torch.ones(1, 2, 3, dtype=torch.bool))
