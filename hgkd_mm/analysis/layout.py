"""Where in the image the tokens of a vision transformer are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from torch import nn

from hgkd_mm.models.teachers import BaseTeacher
from hgkd_mm.models.tokens import Pair


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Tokens of an image: prefix tokens, then a grid in raster order.

    Attributes:
        grid: (gh, gw) patches.
        prefix: class and register tokens in front.
        stride: pixels from one patch to the next.
    """

    grid: Pair
    prefix: int
    stride: int

    @property
    def patches(self) -> int:
        """Their number."""
        return self.grid[0] * self.grid[1]


def token_layout(network: nn.Module, size: Pair) -> TokenLayout:
    """The layout for images of a size.

    Args:
        network: a ``VisionTransformer`` or ``BEiTViT`` of mmpretrain, what inherits from them,
            or a teacher.
        size: (H, W) pixels.

    Raises:
        TypeError: another network.
        ValueError: patches of the size do not fit, or are not square.
    """
    if isinstance(network, BaseTeacher):
        return TokenLayout(
            grid=network.grid(size), prefix=network.prefix, stride=network.patch_size
        )
    if not isinstance(network, VisionTransformer | BEiTViT):
        raise TypeError(
            f'Where the tokens of {type(network).__name__} are in the image is not known; it is '
            'of VisionTransformer and BEiTViT of mmpretrain, and of teachers.'
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
    """Tokens by their names.

    Args:
        names: 'ROW,COLUMN' of the grid, from 0, or 'cls'. By default three patches on the
            diagonal.
        layout: of the tokens.

    Returns:
        Name to index among all tokens.

    Raises:
        ValueError: a name is neither, or outside the grid.
    """
    (rows, columns), found = layout.grid, {}
    if not names:
        names = [f'{rows * part // 4},{columns * part // 4}' for part in (1, 2, 3)]
    for name in names:
        if name == 'cls' and layout.prefix:
            found[name] = 0
            continue
        parts = name.split(',')
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            cls = " or 'cls'" if layout.prefix else ''
            raise ValueError(
                f'--queries {name} is not a token: give ROW,COLUMN from 0,0 to '
                f'{rows - 1},{columns - 1}{cls}.'
            )
        row, column = map(int, parts)
        if row >= rows or column >= columns:
            raise ValueError(
                f'--queries {name} is outside of the {rows} x {columns} patches: rows go to '
                f'{rows - 1}, columns to {columns - 1}.'
            )
        found[f'{row},{column}'] = layout.prefix + row * columns + column
    return found
