"""BEiT's relative position bias for any token grid and any choice of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from timm.layers.pos_embed_rel import gen_relative_position_index, resize_rel_pos_bias_table
from torch import Tensor, nn

from .tokens import Pair


def table_length(grid: Pair) -> int:
    """Rows of a bias table: one a distance, and three for the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


class RelativePositions(nn.Module):
    """Looks up what BEiT adds to its attention logits (BEiT section 2.2 and its code).

    mmpretrain's ``BEiTViT`` knows the grid of pre-training only, and resizes with a scipy
    function that no longer exists; timm's port of BEiT's own resizing (geometrically spaced
    distances) also does grids that are not square. Its interpolation is linear, BEiT's cubic.

    Args:
        tables: one (L, heads) table that all layers share, or one a layer.
        grid: token grid (gh, gw) of pre-training.
        num_layers: layers to serve.
    """

    def __init__(self, tables: Sequence[Tensor], grid: Pair, num_layers: int) -> None:
        super().__init__()
        self.register_buffer('tables', torch.stack(list(tables)), persistent=False)
        self.trained_grid = grid
        self.num_layers = num_layers
        self._resized: dict[Pair, tuple[Tensor, Tensor]] = {}

    def forward(self, grid: Pair, index: Tensor | None = None) -> Iterator[Tensor]:
        """The bias of each layer in turn.

        Args:
            grid: (gh, gw) of the tokens; n = gh * gw + 1 with the class token.
            index: (b, k) positions of the tokens that are there, without the class token;
                all if None.

        Yields:
            (heads, n, n), or (b, heads, k + 1, k + 1) with ``index``.
        """
        tables, where = self._at(grid)
        if index is not None:
            kept = torch.cat([index.new_zeros(index.shape[0], 1), index + 1], dim=1)
            where = where[kept.unsqueeze(2), kept.unsqueeze(1)]
        bias = None
        for layer in range(self.num_layers):
            if bias is None or len(tables) > 1:
                bias = tables[layer][where].movedim(-1, -3)
            yield bias

    def _at(self, grid: Pair) -> tuple[Tensor, Tensor]:
        """The (T, L, heads) tables resized to a grid, and the (n, n) rows to look up."""
        if grid not in self._resized:
            where = gen_relative_position_index(grid, class_token=True)
            self._resized[grid] = self._resize(grid), where.to(self.tables.device)
        return self._resized[grid]

    def _resize(self, grid: Pair) -> Tensor:
        if grid == self.trained_grid:
            return self.tables
        if self.trained_grid[0] != self.trained_grid[1]:
            raise ValueError(
                f'This BEiT teacher was trained on {self.trained_grid} tokens, and its relative '
                f'positions cannot be resized to {grid} because that grid is not square. Use '
                "images of the teacher's img_size."
            )
        size = (table_length(grid), self.tables.shape[2])
        # In float32 on the CPU: the interpolation knows no other, and runs once a grid.
        tables = [resize_rel_pos_bias_table(t.float().cpu(), grid, size) for t in self.tables]
        return torch.stack(tables).to(self.tables)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any
    ) -> RelativePositions:
        self._resized.clear()
        return super()._apply(fn, *args, **kwargs)
