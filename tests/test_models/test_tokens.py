"""Visible tokens, and running on those only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hgkd_mm.models.tokens import mean_tokens, on_visible, visible_positions, visible_tokens
from hgkd_mm.sparse import CellMask


def test_each_cell_covers_its_tokens() -> None:
    mask = CellMask(torch.tensor([[[True, False]]]))
    expected = torch.tensor([[[True, True, False, False]] * 3])
    torch.testing.assert_close(visible_tokens(mask, (3, 4)), expected)
    for grid in ((3, 3), (4, 5), (1, 4)):
        with pytest.raises(ValueError, match='which have to be whole tokens'):
            visible_tokens(CellMask.full(batch=1, grid=(2, 2)), grid)


def test_positions_are_in_raster_order_and_equally_many() -> None:
    visible = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], dtype=torch.bool)
    torch.testing.assert_close(visible_positions(visible), torch.tensor([[0, 3], [1, 2]]))
    visible[0, 1, 0] = True
    with pytest.raises(ValueError, match=r'got \[2, 3\] tokens'):
        visible_positions(visible)


@pytest.mark.parametrize('visible', [[[[1, 1, 0]], [[0, 1, 1]]], [[[1, 1, 1]], [[1, 1, 1]]]])
def test_outputs_return_to_their_place(visible: list) -> None:
    visible = torch.tensor(visible, dtype=torch.bool)
    batch = torch.tensor([[1.0, 10.0, 20.0, 30.0], [2.0, 40.0, 50.0, 60.0]]).unsqueeze(-1)
    layer, seen = nn.Identity(), []

    def network(x: Tensor) -> Tensor:
        seen.append(layer(x))
        return seen[-1] + 1

    first, tokens = on_visible(network, batch, visible, layer=layer, prefix=1)
    torch.testing.assert_close(first, batch[:, 0] + 1)
    expected = torch.where(visible[:, 0], batch[:, 1:, 0] + 1, torch.zeros(()))
    torch.testing.assert_close(tokens[..., 0], expected)
    assert seen[0].shape[1] == 1 + visible[0].sum()
    assert torch.equal(layer(batch), batch)  # no hook is left


def test_mean_over_visible_tokens() -> None:
    tokens = torch.tensor([[[1.0], [2.0], [6.0]], [[1.0], [2.0], [6.0]]])
    visible = torch.tensor([[[1, 0, 1]], [[0, 0, 0]]], dtype=torch.bool)
    torch.testing.assert_close(mean_tokens(tokens), torch.tensor([[3.0], [3.0]]))
    torch.testing.assert_close(mean_tokens(tokens, visible), torch.tensor([[3.5], [0.0]]))
