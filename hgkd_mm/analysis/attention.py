"""Attention of a network over a set of images: layer curves, and maps of chosen queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgkd_mm.evaluation import attention_distance, attention_nmi, eval_mode
from hgkd_mm.models.qkv import read_qkv

from .layout import TokenLayout
from .subject import Subject


@dataclass(frozen=True, kw_only=True)
class LayerAttention:
    """One block, averaged over images.

    Attributes:
        block: its index, from 0.
        distance: of each head, in pixels (`attention_distance`).
        nmi: of each head (`attention_nmi`).
    """

    block: int
    distance: tuple[float, ...]
    nmi: tuple[float, ...]


def attention_curves(
    subject: Subject,
    blocks: Mapping[int, nn.Module],
    layout: TokenLayout,
    batches: Iterable[Tensor],
) -> list[LayerAttention]:
    """Average attention distance and NMI of each head.

    Args:
        subject: the network.
        blocks: index to block of it.
        layout: of its tokens.
        batches: (b, 3, H, W) normalised images, at least one.

    Returns:
        One entry a block, in the order of ``blocks``.

    Raises:
        ValueError: the tokens are not those of the layout.
    """
    rows: dict[int, list[Tensor]] = {index: [] for index in blocks}
    with torch.no_grad(), eval_mode(subject.network):
        for images in batches:
            with read_qkv(blocks) as found:
                subject.run(images)
            for index, read in found.items():
                attention = read.attention()
                distance = attention_distance(
                    attention, grid=layout.grid, patch_size=layout.stride, prefix=layout.prefix
                )
                nmi = attention_nmi(attention, prefix=layout.prefix)
                rows[index].append(torch.stack([distance, nmi]).cpu())
    means = {index: torch.cat(parts, dim=1).mean(1).tolist() for index, parts in rows.items()}
    return [
        LayerAttention(block=index, distance=tuple(distance), nmi=tuple(nmi))
        for index, (distance, nmi) in means.items()
    ]


def attention_maps(
    subject: Subject,
    blocks: Mapping[int, nn.Module],
    layout: TokenLayout,
    images: Tensor,
    queries: Sequence[int],
) -> dict[int, Tensor]:
    """What chosen tokens attend to among the patches, averaged over heads.

    Args:
        subject: the network.
        blocks: index to block of it.
        layout: of its tokens.
        images: (B, 3, H, W) normalised.
        queries: indices of tokens, prefix tokens among them.

    Returns:
        Block to (B, queries, gh, gw) float64, each map summing to 1.

    Raises:
        ValueError: the tokens are not those of the layout.
    """
    with torch.no_grad(), eval_mode(subject.network), read_qkv(blocks) as found:
        subject.run(images)
    maps = {}
    for index, read in found.items():
        attention = read.attention().double()
        chosen = attention[:, :, list(queries), layout.prefix :]
        if chosen.shape[-1] != layout.patches:
            raise ValueError(
                f'Block {index} has {chosen.shape[-1]} patches where the image has '
                f'{layout.grid[0]} x {layout.grid[1]}.'
            )
        chosen = (chosen / chosen.sum(-1, keepdim=True)).mean(1)
        maps[index] = chosen.unflatten(-1, layout.grid).cpu()
    return maps
