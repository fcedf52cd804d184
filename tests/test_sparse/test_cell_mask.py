"""CellMask: what is visible, and what is refused."""

import pytest
import torch

from hgkd_mm.sparse import CellMask, sparsify


def random(seed: int = 0, **settings: object) -> CellMask:
    return CellMask.random(**settings, generator=torch.Generator().manual_seed(seed))


def test_random_hides_the_same_number_everywhere() -> None:
    mask = random(batch=8, grid=(7, 7), mask_ratio=0.6)
    assert mask.visible.shape == (8, 7, 7) and mask.visible.dtype == torch.bool
    assert mask.visible.flatten(1).sum(1).tolist() == [20] * 8
    assert mask.num_visible == 160 and mask.per_image == 20
    assert len({tuple(v.flatten().tolist()) for v in mask.visible}) == 8
    again, other = (random(seed, batch=8, grid=(7, 7), mask_ratio=0.6) for seed in (0, 1))
    assert torch.equal(mask.visible, again.visible)
    assert not torch.equal(mask.visible, other.visible)


def test_every_cell_is_equally_likely() -> None:
    share = random(batch=4000, grid=(3, 3), mask_ratio=0.6).visible.float().mean(0)
    assert (share - 4 / 9).abs().max() < 0.04


def test_tables_of_random_and_of_the_same_grid_agree() -> None:
    mask = random(batch=3, grid=(4, 2), mask_ratio=0.4)
    same = CellMask(mask.visible)
    for a, b in zip(mask.cells(), same.cells(), strict=True):
        assert torch.equal(a, b)
    assert same.per_image == mask.per_image
    assert mask.to('cpu') is mask and mask.to('meta').visible.device.type == 'meta'


def test_at_and_tile_rows_name_the_same_places() -> None:
    mask = CellMask(torch.tensor([[[True, False], [False, True]], [[False, False], [True, True]]]))
    flat = torch.zeros(2 * 6 * 2, dtype=torch.bool)
    flat[mask.tile_rows(3)] = True
    assert torch.equal(flat.view(2, 6, 2), mask.at((6, 2)))
    assert mask.per_image == 2


def test_cell_numbers_tell_hidden_from_outside() -> None:
    mask = CellMask(torch.tensor([[[True, False], [False, True]]]))
    assert mask.cell_number(1).tolist() == [
        [[3, 3, 3, 3], [3, 0, 2, 3], [3, 2, 1, 3], [3, 3, 3, 3]]
    ]


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: CellMask(torch.zeros(2, 3, 3, dtype=torch.bool)), r'\(2, 3, 3\).*mask\.ratio'),
        (lambda: CellMask(torch.ones(3, 3, dtype=torch.bool)), r'\(3, 3\)'),
        (lambda: CellMask(torch.ones(2, 3, 3)), 'float32'),
        (lambda: random(batch=1, grid=(7, 7), mask_ratio=1.0), 'mask.ratio'),
        (lambda: random(batch=1, grid=(2, 2), mask_ratio=0.9), '0.9.*2 x 2.*mask.ratio'),
        (lambda: CellMask.full(batch=1, grid=(2, 2)).at((7, 7)), 'mask.cell'),
        (lambda: CellMask.full(batch=1, grid=(2, 2)).at((0, 2)), 'mask.cell'),
    ],
)
def test_bad_masks_are_refused_in_a_sentence(make, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


@pytest.mark.parametrize(
    ('shape', 'engine', 'words'),
    [
        ((2, 3, 65, 64), 'tiles', '65 x 64.*mask.cell'),
        ((2, 3, 65, 64), 'masked_dense', '65 x 64.*mask.cell'),
        ((3, 3, 64, 64), 'tiles', r'B = 2 .*\(3, 3, 64, 64\)'),
        ((3, 64, 64), 'tiles', '3, 64, 64'),
        ((2, 3, 64, 64), 'tile', "'tile'.*'tiles', 'masked_dense', 'spconv'"),
    ],
)
def test_images_and_engines_that_do_not_fit_are_refused(
    shape: tuple, engine: str, words: str
) -> None:
    mask = CellMask.full(batch=2, grid=(2, 2))
    with pytest.raises(ValueError, match=words):
        sparsify(torch.zeros(shape), mask, engine)
