"""Attention of the layers of a vision transformer: distance and NMI of each head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from torch import Tensor, nn

from hgkd_mm.evaluation import attention_distance, attention_nmi, eval_mode
from hgkd_mm.models.qkv import attention_blocks, read_qkv
from hgkd_mm.models.teachers import BaseTeacher

from .figure import BLUE, save_figure
from .images import Size
from .networks import run_whole


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Blocks of a vision transformer and their tokens: prefix tokens, then a grid in raster order.

    Attributes:
        blocks: the attention blocks that run, in order.
        grid: (gh, gw) patches.
        prefix: number of class and register tokens.
        stride: pixels from one patch to the next.
    """

    blocks: Sequence[nn.Module]
    grid: tuple[int, int]
    prefix: int
    stride: int


def token_layout(network: nn.Module, size: Size) -> TokenLayout:
    """The layout for images of ``size`` (H, W).

    Raises:
        TypeError: the network is no ``VisionTransformer`` or ``BEiTViT`` of mmpretrain and no
            teacher, or its attention cannot be read.
        ValueError: its patches are not square.
    """
    if isinstance(network, BaseTeacher):
        return TokenLayout(
            blocks=network.blocks(),
            grid=network.grid(size),
            prefix=network.prefix,
            stride=network.patch_size,
        )
    if not isinstance(network, VisionTransformer | BEiTViT):
        raise TypeError(
            f'the positions of the tokens of {type(network).__name__} in the image are not known; '
            'they are known for VisionTransformer and BEiTViT of mmpretrain, and for teachers.'
        )
    strides = network.patch_embed.projection.stride
    if len(set(strides)) > 1:
        raise ValueError(
            f'Distances are in pixels between square patches, but model.backbone has patches '
            f'every {strides[0]} x {strides[1]} px.'
        )
    with torch.no_grad():
        weight = next(network.patch_embed.parameters())
        grid = network.patch_embed(weight.new_zeros(1, 3, *size))[1]
    return TokenLayout(
        blocks=attention_blocks(network),
        grid=tuple(grid),
        prefix=network.num_extra_tokens,
        stride=strides[0],
    )


def attention_layers(
    network: nn.Module, layout: TokenLayout, batches: Iterable[Tensor]
) -> list[dict[str, Any]]:
    """Attention statistics of each block, averaged over (b, 3, H, W) normalized images.

    Returns:
        For each block its index, ``distance`` (`attention_distance`) and ``nmi``
        (`attention_nmi`) of each head, and their means.
    """
    parts: list[list[Tensor]] = [[] for _ in layout.blocks]
    with torch.no_grad(), eval_mode(network):
        for images in batches:
            with read_qkv(dict(enumerate(layout.blocks))) as found:
                run_whole(network, images)
            for index, read in found.items():
                attention = read.attention()
                distance = attention_distance(
                    attention, grid=layout.grid, patch_size=layout.stride, prefix=layout.prefix
                )
                nmi = attention_nmi(attention, prefix=layout.prefix)
                parts[index].append(torch.stack([distance, nmi]).cpu())
    layers = []
    for index, part in enumerate(parts):
        distance, nmi = torch.cat(part, dim=1).mean(1)
        means = {'distance_mean': distance.mean().item(), 'nmi_mean': nmi.mean().item()}
        heads = {'distance': distance.tolist(), 'nmi': nmi.tolist()}
        layers.append({'block': index} | heads | means)
    return layers


def draw_curves(
    layers: Sequence[Mapping[str, Any]], path: str | Path, *, title: str, uniform: float
) -> Path:
    """Draws attention distance and NMI over layers: a dot per head, a line for their mean.

    Args:
        layers: from `attention_layers`.
        path: file to write; its suffix names the format.
        title: line above it all.
        uniform: distance, in pixels, of a head that attends to all patches alike: a dotted line.
    """
    figure = Figure(figsize=(9.75, 3.75), layout='constrained')
    figure.suptitle(title, fontsize=10, wrap=True)
    left, right = figure.subplots(1, 2)
    left.axhline(uniform, color='grey', linestyle=':', label='uniform attention')
    for ax, key, label in (
        (left, 'distance', 'average attention distance, px'),
        (right, 'nmi', 'normalized mutual information'),
    ):
        heads = np.array([layer[key] for layer in layers])
        ax.plot(heads, 'o', markersize=4, alpha=0.4, color=BLUE)
        ax.plot(heads.mean(1), color=BLUE, label='mean of heads (dots)')
        ax.set(xlabel='block', ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylim(bottom=0)
    left.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)
