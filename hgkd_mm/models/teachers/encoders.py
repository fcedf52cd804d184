"""mmpretrain's vision transformers, run on any choice of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.utils import resize_pos_embed
from timm.layers.pos_embed_rel import gen_relative_position_index, resize_rel_pos_bias_table
from torch import Tensor, nn

from ..qkv import FusedBEiTAttention
from ..tokens import Pair


class ViTEncoder(nn.Module):
    """A ``VisionTransformer`` taken apart into embedding and blocks.

    Args:
        vit: mmpretrain's network, weights loaded.
        layer: block whose output is taken, counted from 0. Later blocks do not run. After the
            last one comes the final norm, if the network has one.
    """

    def __init__(self, vit: VisionTransformer | BEiTViT, layer: int) -> None:
        super().__init__()
        self.vit = vit
        self.layer = layer

    def embed(self, images: Tensor, grid: Pair) -> Tensor:
        """(B, N, D) patch embeddings of (B, 3, H, W) images, without positions."""
        return self.vit.patch_embed(images)[0]

    def place(self, tokens: Tensor, grid: Pair) -> Tensor:
        """Adds absolute positions, resized to the grid, to (B, N, D) patch embeddings."""
        positions = self._positions(grid)
        return tokens if positions is None else tokens + positions[:, 1:]

    def forward(
        self, tokens: Tensor, grid: Pair, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class token (b, D) and tokens (b, k, D) after the blocks.

        Args:
            tokens: (b, k, D) embeddings with their positions, all of them or those at
                ``index``.
            grid: (gh, gw) of the whole image.
            index: (b, k) positions of these tokens; all in raster order if None.
        """
        cls, positions = self.vit.cls_token, self._positions(grid)
        cls = cls if positions is None else cls + positions[:, :1]
        x = torch.cat([cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        x = self._blocks(x, grid, index)
        if self.layer == len(self.vit.layers) - 1 and self.vit.final_norm:
            x = self.vit.norm1(x)
        return x[:, 0], x[:, 1:]

    def _blocks(self, x: Tensor, grid: Pair, index: Tensor | None) -> Tensor:
        for block in self.vit.layers[: self.layer + 1]:
            x = block(x)
        return x

    def _positions(self, grid: Pair) -> Tensor | None:
        if self.vit.pos_embed is None:
            return None
        return resize_pos_embed(
            self.vit.pos_embed,
            self.vit.patch_resolution,
            grid,
            mode=self.vit.interpolate_mode,
            num_extra_tokens=1,
        )


class BEiTEncoder(ViTEncoder):
    """A ``BEiTViT``, built without its own position bias, which is handed to it instead.

    Args:
        vit: mmpretrain's network, weights loaded.
        layer: block whose output is taken.
        positions: BEiT's relative position bias; None if it has absolute positions only.
    """

    def __init__(self, vit: BEiTViT, layer: int, positions: RelativePositions | None) -> None:
        super().__init__(vit, layer)
        self.relative = positions
        for block in vit.layers:
            block.attn = FusedBEiTAttention(block.attn)

    def _blocks(self, x: Tensor, grid: Pair, index: Tensor | None) -> Tensor:
        blocks = self.vit.layers[: self.layer + 1]
        biases = [None] * len(blocks) if self.relative is None else self.relative(grid, index)
        for block, bias in zip(blocks, biases, strict=False):
            x = block(x, rel_pos_bias=bias)
        return x


class MAEDecoder(nn.Module):
    """``MAEPretrainDecoder`` up to its norm: MAE's inference of hidden patches, as features.

    Args:
        decoder: mmpretrain's network, weights loaded.
        grid: token grid (gh, gw) of pre-training.
        layer: block whose output is taken; the norm comes after the last one.
    """

    def __init__(self, decoder: MAEPretrainDecoder, grid: Pair, layer: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.trained_grid = grid
        self.layer = layer

    def forward(self, cls: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features (B, N, decoder width) of all positions, from the visible ones.

        Args:
            cls: (B, D) the encoder's class token.
            tokens: (B, N, D) the encoder's tokens; those of hidden positions are not used.
            visible: (B, gh, gw) bool.
        """
        x = self.decoder.decoder_embed(torch.cat([cls.unsqueeze(1), tokens], dim=1))
        shown = visible.flatten(1).unsqueeze(-1)
        patches = torch.where(shown, x[:, 1:], self.decoder.mask_token.to(x.dtype))
        positions = resize_pos_embed(
            self.decoder.decoder_pos_embed,
            self.trained_grid,
            tuple(visible.shape[1:]),
            mode='bicubic',
            num_extra_tokens=1,
        )
        x = torch.cat([x[:, :1], patches], dim=1) + positions
        for block in self.decoder.decoder_blocks[: self.layer + 1]:
            x = block(x)
        if self.layer == len(self.decoder.decoder_blocks) - 1:
            x = self.decoder.decoder_norm(x)
        return x[:, 1:]


def table_length(grid: Pair) -> int:
    """Rows of a bias table: one a distance, and three for the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


class RelativePositions(nn.Module):
    """The bias that BEiT adds to its attention logits (BEiT section 2.2 and its code).

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
