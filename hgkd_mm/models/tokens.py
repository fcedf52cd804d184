"""Tokens of vision transformers: which are visible, and running on those only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask

Pair = tuple[int, int]


def visible_tokens(mask: CellMask, grid: Pair) -> Tensor:
    """The student's mask on a teacher's token grid (gh, gw): (B, gh, gw) bool, True = visible.

    Raises:
        ValueError: the grid is no whole multiple of the mask's.
    """
    if any(g % c for g, c in zip(grid, mask.grid, strict=True)):
        raise ValueError(
            f'The teacher has {grid[0]} x {grid[1]} tokens an image and the mask {mask.grid[0]} x '
            f'{mask.grid[1]} cells, which have to be whole tokens: choose model.mask.cell as a '
            "multiple of the teacher's patch_size, or teacher_view='full'."
        )
    return mask.at(grid)


def visible_positions(visible: Tensor) -> Tensor:
    """(B, k): positions of the visible tokens in raster order, from (B, gh, gw) bool.

    Raises:
        ValueError: images have different numbers of them, so that they do not fit into a batch.
    """
    flat = visible.flatten(1)
    counts = flat.sum(1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            'A teacher that sees visible cells only needs equally many of them in each image, got '
            f"{sorted(set(counts))} tokens: use CellMask.random, or teacher_view='full'."
        )
    # Not nonzero, which would wait for the device a second time.
    order = torch.argsort(flat.byte(), dim=1, descending=True, stable=True)
    return order[:, : counts[0]]


def on_visible(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    visible: Tensor,
    *,
    layer: nn.Module,
    prefix: int,
) -> tuple[Tensor, Tensor]:
    """Runs a transformer whose blocks see the visible tokens alone.

    Args:
        network: from images to (B, prefix + n, D).
        images: (B, 3, H, W).
        visible: (B, gh, gw) bool.
        layer: the network's last one before its blocks, (B, prefix + gh * gw, D) out.
        prefix: number of class and register tokens, which always pass.

    Returns:
        (B, D) first tokens, and (B, gh * gw, D) patch tokens that are zero where hidden.
    """
    index = visible_positions(visible)

    def drop(_layer: nn.Module, _inputs: tuple, x: Tensor) -> Tensor:
        return torch.cat([x[:, :prefix], take(x[:, prefix:], index)], dim=1)

    handle = layer.register_forward_hook(drop)
    try:
        features = network(images)
    finally:
        handle.remove()
    out = features[:, prefix:]
    dense = out.new_zeros(len(out), visible[0].numel(), out.shape[2])
    return features[:, 0], dense.scatter_(1, index.unsqueeze(-1).expand_as(out), out)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """(b, k, D): the tokens (b, N, D) at positions (b, k)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def mean_tokens(tokens: Tensor, visible: Tensor | None = None) -> Tensor:
    """(B, D): mean of (B, N, D) tokens over all or over the visible positions."""
    if visible is None:
        return tokens.mean(1)
    weight = visible.flatten(1).unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
