"""CellMask: what is visible, and what is refused."""

import pytest
import torch

from hgkd_mm.sparse import CellMask, sparsify


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_hides_the_same_number_everywhere() -> None:
    mask = CellMask.random(batch=8, grid=(7, 7), mask_ratio=0.6, generator=generator())
    assert mask.visible.shape == (8, 7, 7)
    assert mask.visible.dtype == torch.bool
    assert mask.visible.flatten(1).sum(1).tolist() == [20] * 8
    assert mask.num_visible == 160
    assert mask.per_image == 20
    assert len({tuple(v.flatten().tolist()) for v in mask.visible}) == 8


def test_random_is_reproducible_and_differs_by_seed() -> None:
    one, two, other = (
        CellMask.random(batch=4, grid=(5, 9), mask_ratio=0.5, generator=generator(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(one.visible, two.visible)
    assert not torch.equal(one.visible, other.visible)


def test_every_cell_is_equally_likely() -> None:
    mask = CellMask.random(batch=4000, grid=(3, 3), mask_ratio=0.6, generator=generator())
    share = mask.visible.float().mean(0)
    assert (share - 4 / 9).abs().max() < 0.04


def test_tables_of_random_and_of_the_same_grid_agree() -> None:
    mask = CellMask.random(batch=3, grid=(4, 2), mask_ratio=0.4, generator=generator())
    same = CellMask(mask.visible)
    for a, b in zip(mask.cells(), same.cells(), strict=True):
        assert torch.equal(a, b)
    assert same.per_image == mask.per_image


def test_at_and_positions_name_the_same_places() -> None:
    mask = CellMask(torch.tensor([[[True, False], [False, True]], [[False, False], [True, True]]]))
    flat = torch.zeros(2 * 6 * 4, dtype=torch.bool)
    flat[mask.positions((3, 2))] = True
    assert torch.equal(flat.view(2, 6, 4), mask.at((6, 4)))
    assert mask.per_image == 2


def test_cell_numbers_tell_hidden_from_outside() -> None:
    mask = CellMask(torch.tensor([[[True, False], [False, True]]]))
    assert mask.cell_number(1).tolist() == [
        [[3, 3, 3, 3], [3, 0, 2, 3], [3, 2, 1, 3], [3, 3, 3, 3]]
    ]


def test_cells_follow_the_device() -> None:
    mask = CellMask.random(batch=2, grid=(2, 2), mask_ratio=0.5, generator=generator())
    assert mask.to('cpu') is mask
    assert mask.to('meta').visible.device.type == 'meta'


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: CellMask(torch.zeros(2, 3, 3, dtype=torch.bool)), r'\(2, 3, 3\).*mask\.ratio'),
        (lambda: CellMask(torch.ones(3, 3, dtype=torch.bool)), r'\(3, 3\)'),
        (lambda: CellMask.random(batch=1, grid=(7, 7), mask_ratio=1.0), 'mask.ratio'),
        (lambda: CellMask.random(batch=1, grid=(2, 2), mask_ratio=0.9), '0.9.*2 x 2.*mask.ratio'),
        (lambda: CellMask.random(batch=0, grid=(2, 2), mask_ratio=0.5), r'0 and \(2, 2\)'),
        (lambda: CellMask.full(batch=1, grid=(2, 2)).at((7, 7)), 'mask.cell'),
        (lambda: CellMask.full(batch=1, grid=(2, 2)).at((0, 2)), 'mask.cell'),
    ],
)
def test_bad_masks_are_refused_in_a_sentence(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_mask_must_be_bool() -> None:
    with pytest.raises(TypeError, match='float32'):
        CellMask(torch.ones(2, 3, 3))


@pytest.mark.parametrize('engine', ['tiles', 'masked_dense'])
@pytest.mark.parametrize(
    ('shape', 'words'),
    [
        ((2, 3, 65, 64), '65 x 64.*mask.cell'),
        ((3, 3, 64, 64), '3 .*2 '),
        ((3, 64, 64), '3, 64, 64'),
    ],
)
def test_images_that_do_not_fit_are_refused(engine: str, shape: tuple, words: str) -> None:
    mask = CellMask.full(batch=2, grid=(2, 2))
    with pytest.raises(ValueError, match=words):
        sparsify(torch.zeros(shape), mask, engine)


def test_an_unknown_engine_is_refused() -> None:
    mask = CellMask.full(batch=1, grid=(2, 2))
    with pytest.raises(ValueError, match="'tiles'"):
        sparsify(torch.zeros(1, 3, 64, 64), mask, engine='magic')
