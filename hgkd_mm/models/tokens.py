"""Tokens of vision transformers: their size, which are visible, and running on those only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask

Pair = tuple[int, int]
Group = tuple[Tensor | None, Tensor]


def patch_size(vit: nn.Module) -> Pair:
    """Pixels (height, width) of the patches that an mmpretrain transformer makes tokens of.

    Raises:
        ValueError: patches overlap or leave gaps, so that tokens are no tiling of the image.
    """
    projection = vit.patch_embed.projection
    size, stride = projection.kernel_size, projection.stride
    if size != stride:
        raise ValueError(
            f'Patches of {size[0]} x {size[1]} px every {stride[0]} x {stride[1]} px do not tile '
            'the image, but heads compare tokens one by one: leave stride out of '
            'model.backbone.patch_cfg.'
        )
    return size


def visible_tokens(mask: CellMask, grid: Pair) -> Tensor:
    """The student's mask on a teacher's token grid (gh, gw): (B, gh, gw) bool, True = visible.

    A token that covers several cells counts as visible only if all of them are, so that no
    hidden pixel reaches the teacher.

    Raises:
        ValueError: neither grid is a whole multiple of the other.
    """
    if all(g % c == 0 for g, c in zip(grid, mask.grid, strict=True)):
        return mask.at(grid)
    if all(c % g == 0 for g, c in zip(grid, mask.grid, strict=True)):
        (gh, gw), (ch, cw) = grid, mask.grid
        return mask.visible.view(-1, gh, ch // gh, gw, cw // gw).all(dim=4).all(dim=2)
    raise ValueError(
        f'The teacher has {grid[0]} x {grid[1]} tokens an image and the mask '
        f'{mask.grid[0]} x {mask.grid[1]} cells; one must be a whole multiple of the other. '
        "Choose a cell that is a multiple of the teacher's patch, or that divides it (config "
        "keys mask.cell and the teacher's patch_size), or teacher_view='full'."
    )


def group_by_count(visible: Tensor) -> list[Group]:
    """Images with equally many visible tokens, which fit into one batch without padding.

    Args:
        visible: (B, gh, gw) bool.

    Returns:
        For each group its images, (b,) long, or None for the whole batch; and the positions
        of their visible tokens in raster order, (b, k) long.
    """
    flat = visible.flatten(1)
    order = torch.argsort(flat.byte(), dim=1, descending=True, stable=True)
    counts = flat.sum(1).tolist()
    if len(set(counts)) == 1:
        return [(None, order[:, : counts[0]])]
    groups: list[Group] = []
    for count in sorted(set(counts)):
        images = torch.tensor([i for i, c in enumerate(counts) if c == count])
        images = images.to(visible.device)
        groups.append((images, order[images, :count]))
    return groups


def on_visible(
    batch: Tensor, visible: Tensor, run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Runs a transformer on the visible tokens alone and puts its output back in place.

    Args:
        batch: (B, ...) images or all their tokens.
        visible: (B, gh, gw) bool.
        run: takes (b, ...) of the batch and the (b, k) positions of its visible tokens, gives a
            (b, C) class token and (b, k, C) tokens.

    Returns:
        (B, C) class tokens, and (B, gh * gw, C) tokens that are zero where hidden.
    """
    positions = visible[0].numel()
    parts = []
    for images, index in group_by_count(visible):
        first, out = run(batch if images is None else batch[images], index)
        dense = out.new_zeros(out.shape[0], positions, out.shape[2])
        dense.scatter_(1, index.unsqueeze(-1).expand_as(out), out)
        if images is None:
            return first, dense
        parts.append((images, first, dense))
    back = torch.cat([images for images, _, _ in parts]).argsort()
    first = torch.cat([first for _, first, _ in parts])[back]
    return first, torch.cat([dense for _, _, dense in parts])[back]


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """(b, k, D): the tokens (b, N, D) at positions (b, k)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def mean_tokens(tokens: Tensor, visible: Tensor | None = None) -> Tensor:
    """(B, D): mean of (B, N, D) tokens over all or over the visible positions.

    An image that shows nothing gets zeros.
    """
    if visible is None:
        return tokens.mean(1)
    weight = visible.flatten(1).unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def after_norm(
    norm: nn.Module, embedding: Tensor, tokens: Tensor, cls: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features after the norm that a network applies to what it has pooled.

    Args:
        norm: of D channels, be it made for tokens or for maps.
        embedding: (B, D).
        tokens: (B, N, D).
        cls: (B, D) first token.
        visible: (B, gh, gw) bool; hidden tokens stay zero. None if there are none.

    Returns:
        Embedding, tokens and first token, each normed by itself.
    """

    def normed(x: Tensor) -> Tensor:
        if '2d' in type(norm).__name__:  # timm's take (B, D, H, W)
            return norm(x.reshape(-1, x.shape[-1], 1, 1)).view_as(x)
        return norm(x)

    embedding, tokens, cls = map(normed, (embedding, tokens, cls))
    if visible is not None:
        tokens = tokens * visible.flatten(1).unsqueeze(-1)
    return embedding, tokens, cls
