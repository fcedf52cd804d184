"""Attention of a vision transformer: distance and NMI of heads, and maps of chosen queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from numpy.typing import NDArray
from torch import Tensor, nn

from hgkd_mm.evaluation import attention_distance, attention_nmi, eval_mode
from hgkd_mm.models.qkv import read_qkv
from hgkd_mm.models.teachers import BaseTeacher

from .figure import BLUE, INK, ImageGrid, PictureColumn, draw_grid, save_figure, style_axes
from .images import Size
from .networks import LoadedNetwork

_HEAD_COLOR, _QUERY_COLOR = '#7f9fc4', (0, 255, 255)


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Tokens of an image: prefix tokens, then a grid in raster order."""

    grid: tuple[int, int]  # (gh, gw) patches
    prefix: int  # number of class and register tokens
    stride: int  # pixels from one patch to the next


def token_layout(network: nn.Module, size: Size) -> TokenLayout:
    """The layout for images of ``size`` (H, W).

    Raises:
        TypeError: the network is no ``VisionTransformer`` or ``BEiTViT`` of mmpretrain and no
            teacher.
        ValueError: the size does not fit the network, or its patches are not square.
    """
    if isinstance(network, BaseTeacher):
        return TokenLayout(
            grid=network.grid(size), prefix=network.prefix, stride=network.patch_size
        )
    if not isinstance(network, VisionTransformer | BEiTViT):
        raise TypeError(
            f'the positions of the tokens of {type(network).__name__} in the image are not known; '
            'they are known for VisionTransformer and BEiTViT of mmpretrain, and for teachers.'
        )
    with torch.no_grad():
        weight = next(network.patch_embed.parameters())
        grid = network.patch_embed(weight.new_zeros(1, 3, *size))[1]
    if isinstance(network, BEiTViT) and tuple(grid) != tuple(network.patch_resolution):
        height, width = network.img_size
        raise ValueError(
            f'The relative positions of BEiTViT fit images of {height} x {width} px (config key '
            f'model.backbone.img_size), not {size[0]} x {size[1]}: set --size {height}.'
        )
    strides = network.patch_embed.projection.stride
    if len(set(strides)) > 1:
        raise ValueError(
            f'Distances are in pixels between square patches, but model.backbone has patches '
            f'every {strides[0]} x {strides[1]} px.'
        )
    return TokenLayout(grid=tuple(grid), prefix=network.num_extra_tokens, stride=strides[0])


def find_queries(names: Sequence[str] | None, layout: TokenLayout) -> dict[str, int]:
    """Index among all tokens for each name: 'ROW,COLUMN' of the grid, from 0, or 'cls'.

    Without names, three patches on the diagonal.

    Raises:
        ValueError: a name is neither, or outside the grid.
    """
    (rows, columns), found = layout.grid, {}
    for name in names or [f'{rows * part // 4},{columns * part // 4}' for part in (1, 2, 3)]:
        if name == 'cls' and layout.prefix:
            found[name] = 0
            continue
        match = re.fullmatch(r'\s*(\d+)\s*,\s*(\d+)\s*', name)
        row, column = map(int, match.groups()) if match else layout.grid
        if row >= rows or column >= columns:
            cls = " or 'cls'" if layout.prefix else ''
            raise ValueError(
                f'--queries {name} is not a token: give ROW,COLUMN from 0,0 to '
                f'{rows - 1},{columns - 1}{cls}.'
            )
        found[f'{row},{column}'] = layout.prefix + row * columns + column
    return found


@dataclass(frozen=True, kw_only=True)
class LayerAttention:
    """`attention_distance` and `attention_nmi` of each head of one block, averaged over images."""

    block: int  # from 0
    distance: tuple[float, ...]
    nmi: tuple[float, ...]


def attention_curves(
    loaded: LoadedNetwork,
    blocks: Mapping[int, nn.Module],
    layout: TokenLayout,
    batches: Iterable[Tensor],
) -> list[LayerAttention]:
    """Attention statistics of blocks, given by index, over (b, 3, H, W) normalized images.

    Raises:
        ValueError: the tokens are not those of the layout.
    """
    rows: dict[int, list[Tensor]] = {index: [] for index in blocks}
    with torch.no_grad(), eval_mode(loaded.network):
        for images in batches:
            with read_qkv(blocks) as found:
                loaded.run(images)
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
    loaded: LoadedNetwork,
    blocks: Mapping[int, nn.Module],
    layout: TokenLayout,
    images: Tensor,
    queries: Iterable[int],
) -> dict[int, Tensor]:
    """Attention of chosen tokens to the patches, averaged over heads.

    Args:
        loaded: the network.
        blocks: its blocks by index.
        layout: of its tokens.
        images: (B, 3, H, W) normalized.
        queries: indices among all tokens.

    Returns:
        Index of the block to (B, queries, gh, gw) float64, each map summing to 1.
    """
    with torch.no_grad(), eval_mode(loaded.network), read_qkv(blocks) as found:
        loaded.run(images)
    maps = {}
    for index, read in found.items():
        chosen = read.attention().double()[:, :, list(queries), layout.prefix :]
        chosen = (chosen / chosen.sum(-1, keepdim=True)).mean(1)
        maps[index] = chosen.unflatten(-1, layout.grid).cpu()
    return maps


def draw_curves(
    layers: Sequence[LayerAttention], path: str | Path, *, title: str, uniform: float
) -> Path:
    """Draws attention distance and NMI over layers: a dot per head, a line for their mean.

    Args:
        layers: from `attention_curves`.
        path: file to write; its suffix names the format.
        title: line above it all.
        uniform: distance, in pixels, of a head that attends to all patches alike: a dotted line.
    """
    figure = Figure(figsize=(9.75, 3.75))
    figure.set_layout_engine('constrained', w_pad=0.12, h_pad=0.12)
    figure.suptitle(title[-110:], fontsize=10, color=INK, x=0.015, ha='left')
    panels = figure.subplots(1, 2)
    blocks = [layer.block for layer in layers]
    panels[0].axhline(uniform, color=INK, linewidth=1, linestyle=':', label='uniform attention')
    for ax, label, heads in (
        (panels[0], 'average attention distance, px', [layer.distance for layer in layers]),
        (panels[1], 'normalized mutual information', [layer.nmi for layer in layers]),
    ):
        dots = ax.plot(blocks, heads, 'o', markersize=4, alpha=0.6, color=_HEAD_COLOR)
        dots[0].set_label('head')
        ax.plot(blocks, np.mean(heads, axis=1), color=BLUE, linewidth=1.8, label='mean of heads')
        style_axes(ax)
        ax.set_xticks(blocks[:: -(-len(blocks) // 16)])
        ax.set_xlabel('block', fontsize=8, color=INK)
        ax.set_ylabel(label, fontsize=8, color=INK)
        ax.set_ylim(bottom=0)
    panels[0].legend(fontsize=7.5, frameon=False)
    return save_figure(figure, path)


def draw_maps(
    pictures: NDArray[np.uint8],
    maps: Mapping[int, Tensor],
    queries: Mapping[str, int],
    layout: TokenLayout,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draws attention maps next to the images: one row per image, one column per block and query.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        maps: their `attention_maps`.
        queries: name to index of the token.
        layout: of the tokens.
        path: file to write; its suffix names the format.
        title: line above it all.
    """
    grid = ImageGrid(columns=[PictureColumn(group='input', title='image', pictures=pictures)])
    for block, found in maps.items():
        for place, (name, token) in enumerate(queries.items()):
            weights = found[:, place].numpy()
            grid.columns.append(
                PictureColumn(
                    group=f'block {block}',
                    title=name,
                    pictures=paint_maps(pictures, weights, token - layout.prefix),
                    captions=[f'max {one.max():.3f}' for one in weights],
                )
            )
    rows, columns = layout.grid
    grid.notes.append(
        'Attention of the query (ROW,COLUMN of the patch grid, framed) to the patches: mean over '
        'heads, each map from black to its maximum, which is below it; uniform attention is '
        f'{1 / (rows * columns):.3f} everywhere.'
    )
    return draw_grid(grid, path, title=title)


def paint_maps(
    pictures: NDArray[np.uint8], weights: NDArray[np.float64], query: int
) -> NDArray[np.uint8]:
    """Maps of one query over their images in grey, (B, H, W, 3) uint8.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        weights: (B, gh, gw), 0 or more.
        query: index of its patch in raster order, which is framed; below 0 for none.
    """
    height, width = pictures.shape[1:3]
    rows = np.arange(height) * weights.shape[1] // height
    columns = np.arange(width) * weights.shape[2] // width
    scaled = weights / weights.max((1, 2), keepdims=True)
    colors = matplotlib.colormaps['inferno'](scaled)[..., :3][:, rows][:, :, columns]
    grey = pictures.mean(3, keepdims=True) / 255
    painted = np.rint(255 * (0.35 * grey + 0.65 * colors)).astype(np.uint8)
    if query >= 0:
        row, column = divmod(query, weights.shape[2])
        (ys,), (xs,) = np.nonzero(rows == row), np.nonzero(columns == column)
        thick = max(1, height // 100)
        frame = np.zeros((height, width), bool)
        frame[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = True
        frame[ys[0] + thick : ys[-1] + 1 - thick, xs[0] + thick : xs[-1] + 1 - thick] = False
        painted[:, frame] = _QUERY_COLOR
    return painted
