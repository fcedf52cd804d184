"""BEiT's position bias against mmpretrain's, and what must hold at any size."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.models.backbones.beit import RelativePositionBias

from hgkd_mm.models.teachers.encoders import RelativePositions, table_length

GRID, HEADS = (4, 4), 2


def table(grid: tuple[int, int] = GRID, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(table_length(grid), HEADS, generator=generator)


@pytest.mark.parametrize('grid', [(4, 4), (2, 3)])
@torch.no_grad()
def test_at_the_trained_size_it_is_mmpretrains(grid: tuple[int, int]) -> None:
    reference = RelativePositionBias(window_size=grid, num_heads=HEADS)
    reference.relative_position_bias_table.copy_(table(grid))
    biases = list(RelativePositions([table(grid)], grid, 3)(grid))
    assert len(biases) == 3
    for bias in biases:
        torch.testing.assert_close(bias, reference(), rtol=0, atol=0)


def test_each_layer_gets_its_own_table() -> None:
    tables = [table(seed=i) for i in range(3)]
    together = list(RelativePositions(tables, GRID, 3)(GRID))
    for i, bias in enumerate(together):
        (alone,) = RelativePositions([tables[i]], GRID, 1)(GRID)
        torch.testing.assert_close(bias, alone, rtol=0, atol=0)


def test_chosen_tokens_get_their_rows_and_columns() -> None:
    positions = RelativePositions([table()], GRID, 1)
    (whole,) = positions(GRID)
    index = torch.tensor([[0, 5, 6], [3, 9, 15]])
    (chosen,) = positions(GRID, index)
    assert chosen.shape == (2, HEADS, 4, 4)
    for b in range(2):
        rows = [0, *(int(i) + 1 for i in index[b])]
        for p, i in enumerate(rows):
            for q, j in enumerate(rows):
                torch.testing.assert_close(chosen[b, :, p, q], whole[:, i, j])


@pytest.mark.parametrize('grid', [(6, 6), (3, 7), (2, 2)])
def test_at_other_sizes_bias_still_depends_on_the_offset_alone(grid: tuple[int, int]) -> None:
    positions = RelativePositions([table()], GRID, 1)
    (bias,) = positions(grid)
    (gh, gw), tokens = grid, grid[0] * grid[1]
    assert bias.shape == (HEADS, tokens + 1, tokens + 1)
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for i in range(tokens):
        for j in range(tokens):
            offset = (i // gw - j // gw, i % gw - j % gw)
            value = bias[:, 1 + i, 1 + j]
            torch.testing.assert_close(seen.setdefault(offset, value), value, rtol=0, atol=0)
    assert len(seen) == (2 * gh - 1) * (2 * gw - 1)
    # No offset keeps its value, as do the three entries of the class token.
    (trained,) = positions(GRID)
    torch.testing.assert_close(seen[0, 0], trained[:, 1, 1])
    torch.testing.assert_close(bias[:, 0, 0], trained[:, 0, 0])
    torch.testing.assert_close(bias[:, 0, 1], trained[:, 0, 1])
    torch.testing.assert_close(bias[:, 1, 0], trained[:, 1, 0])


def test_resizing_keeps_order_along_an_axis() -> None:
    # A table that grows with the vertical offset still does on a larger grid, and does not
    # vary with the horizontal one.
    rows = torch.arange(-3.0, 4.0).repeat_interleave(7).unsqueeze(1).expand(-1, HEADS)
    (bias,) = RelativePositions([torch.cat([rows, torch.zeros(3, HEADS)])], GRID, 1)((6, 5))
    column = bias[0, 1 + 15, 1::5]  # token (3, 0) against (0, 0), (1, 0), ...
    assert (column[:-1] - column[1:] > 0).all()
    torch.testing.assert_close(bias[0, 1 + 15, 1 + 15 : 1 + 20], torch.zeros(5), atol=1e-6, rtol=0)


def test_moving_forgets_what_was_resized() -> None:
    positions = RelativePositions([table()], GRID, 1)
    next(positions((6, 6)))
    (bias,) = positions.double()((6, 6))
    assert bias.dtype == torch.float64


def test_a_trained_grid_that_is_not_square_cannot_be_resized() -> None:
    with pytest.raises(ValueError, match=r'trained on \(2, 3\) tokens.*not square'):
        next(RelativePositions([table((2, 3))], (2, 3), 1)((4, 4)))
