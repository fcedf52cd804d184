"""Visible tokens, groups of equal count, and putting outputs back in place."""

from __future__ import annotations

import pytest
import torch

from hgkd_mm.models.tokens import group_by_count, mean_tokens, on_visible, visible_tokens
from hgkd_mm.sparse import CellMask


def test_each_cell_covers_its_tokens() -> None:
    mask = CellMask(torch.tensor([[[True, False]]]))
    expected = torch.tensor([[[True, True, False, False]] * 3])
    torch.testing.assert_close(visible_tokens(mask, (3, 4)), expected)


def test_a_token_over_several_cells_shows_only_if_all_do() -> None:
    cells = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]]], dtype=torch.bool)
    tokens = visible_tokens(CellMask(cells), (1, 2))
    torch.testing.assert_close(tokens, torch.tensor([[[True, False]]]))


@pytest.mark.parametrize('grid', [(3, 3), (4, 5), (1, 4)])
def test_grids_that_do_not_fit_are_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match='one must be a whole multiple of the other'):
        visible_tokens(CellMask.full(batch=1, grid=(2, 2)), grid)


def test_equal_counts_are_one_group_in_raster_order() -> None:
    visible = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], dtype=torch.bool)
    ((images, index),) = group_by_count(visible)
    assert images is None
    torch.testing.assert_close(index, torch.tensor([[0, 3], [1, 2]]))


def test_unequal_counts_are_grouped() -> None:
    visible = torch.tensor([[[1, 1, 0]], [[0, 0, 1]], [[0, 1, 1]], [[0, 0, 0]]], dtype=torch.bool)
    groups = group_by_count(visible)
    assert [(i.tolist(), index.tolist()) for i, index in groups] == [
        ([3], [[]]),
        ([1], [[2]]),
        ([0, 2], [[0, 1], [1, 2]]),
    ]


@pytest.mark.parametrize(
    'visible',
    [[[[1, 1, 0]], [[0, 1, 1]]], [[[0, 1, 0]], [[1, 0, 1]]], [[[0, 0, 0]], [[1, 1, 1]]]],
    ids=['equal', 'unequal', 'extremes'],
)
def test_outputs_return_to_their_place(visible: list) -> None:
    visible = torch.tensor(visible, dtype=torch.bool)
    batch = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])

    def run(rows: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rows.sum(1, keepdim=True), rows.gather(1, index).unsqueeze(-1) + 1

    first, tokens = on_visible(batch, visible, run)
    torch.testing.assert_close(first, torch.tensor([[60.0], [150.0]]))
    expected = torch.where(visible[:, 0], batch + 1, torch.zeros(()))
    torch.testing.assert_close(tokens[..., 0], expected)


def test_mean_over_visible_tokens() -> None:
    tokens = torch.tensor([[[1.0], [2.0], [6.0]], [[1.0], [2.0], [6.0]]])
    visible = torch.tensor([[[1, 0, 1]], [[0, 0, 0]]], dtype=torch.bool)
    torch.testing.assert_close(mean_tokens(tokens), torch.tensor([[3.0], [3.0]]))
    torch.testing.assert_close(mean_tokens(tokens, visible), torch.tensor([[3.5], [0.0]]))
