"""Densify a sparse feature pyramid and decode it with a U-Net."""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.sparse import SparseFeatureMap

FeatureMap = SparseFeatureMap | Tensor


@MODELS.register_module()
class UNetDecoder(BaseModule):
    r"""UNet-style decoder of a sparse CNN, stopping at any resolution.

    Stated: the student has a "UNet-like decoder" (H-GKD TL;DR). Its form is SparK's,
    seen in code (docs/sources.md 3.2). With level :math:`i` of stride :math:`S / 2^i` counted
    from the coarsest, its map :math:`x_i`, mask token :math:`t_i` and visible set
    :math:`V_i`:

    .. math::
        d_i = \mathrm{Conv}_i(\mathrm{where}(V_i, \mathrm{Norm}_i(x_i), t_i)), \qquad
        u_0 = d_0, \qquad u_{i+1} = \mathrm{Up}_i(u_i) + d_{i+1}

    :math:`\mathrm{Conv}_i` projects to :math:`\mathrm{width} / 2^i` channels, 1x1 at the
    coarsest level (none if the width already fits) and 3x3 elsewhere. :math:`\mathrm{Up}_i`
    is ConvTranspose(4, stride 2) - Conv3x3-norm-ReLU6 - Conv3x3-norm, halving the channels.
    The sum is taken wherever the backbone has a map of that stride.

    Inferred: stopping at ``out_stride`` = 16, where the map has the token grid of a ViT/16
    and one up-block is left of five, at about a quarter of the cost (docs/sources.md 1.5).
    SparK itself goes to stride 1. Levels finer than ``out_stride`` are not built.

    Args:
        in_channels: channels of the backbone's maps, fine to coarse, each of half the
            resolution of the one before it; derived in a model.
        width: channels D at the coarsest level; halved by each up-block.
        out_stride: stride of the output, a power of two up to ``stride``.
        stride: stride of the coarsest map.
        norm_cfg: norm of the densified maps and of the up-blocks. On a sparse map the
            statistics are over visible positions.
        init_cfg: defaults to SparK's: truncated normal of std .02 for convolutions, Kaiming
            fan-out for transposed ones.

    Raises:
        ValueError: the strides are not powers of two, ``out_stride`` exceeds ``stride``,
            or ``width`` cannot be halved often enough.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        width: int = 512,
        out_stride: int = 16,
        stride: int = 32,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type='TruncNormal', layer='Conv2d', std=0.02),
                dict(type='Kaiming', layer='ConvTranspose2d'),
            ]
        )
        blocks = _count_blocks(stride=stride, out_stride=out_stride, width=width)
        norm_cfg = norm_cfg or dict(type='BN')
        self.in_channels = tuple(in_channels)
        self.out_stride = out_stride
        widths = [width // 2**i for i in range(blocks + 1)]
        self.out_channels = widths[-1]
        coarse_to_fine = self.in_channels[::-1][: blocks + 1]
        self.densify = nn.ModuleList(
            Densify(channels, widths[i], kernel=1 if i == 0 else 3, norm_cfg=norm_cfg)
            for i, channels in enumerate(coarse_to_fine)
        )
        self.up_blocks = nn.ModuleList(
            _up_block(widths[i], widths[i + 1], norm_cfg) for i in range(blocks)
        )

    def forward(self, maps: Sequence[FeatureMap]) -> Tensor:
        """Decodes the backbone's maps.

        Args:
            maps: fine to coarse, (B, C_i, H_i, W_i) each; sparse, or dense tensors (then
                everything is visible).

        Returns:
            (B, out_channels, H, W) at ``out_stride``.

        Raises:
            ValueError: a map is not twice as large as the next coarser one.
        """
        coarse_to_fine = list(maps)[::-1]
        x = self.densify[0](coarse_to_fine[0])
        for i, up in enumerate(self.up_blocks, start=1):
            x = up(x)
            if i < len(self.densify):
                skip = self.densify[i](coarse_to_fine[i])
                if skip.shape[2:] != x.shape[2:]:
                    raise ValueError(
                        f'UNetDecoder expects each map to be twice as large as the next coarser '
                        f'one, but map {len(maps) - 1 - i} is {tuple(skip.shape[2:])} where '
                        f'{tuple(x.shape[2:])} was expected: choose out_indices and strides of '
                        'the backbone so that each output halves the resolution, and an image '
                        'size that divides by the total stride.'
                    )
                x = x + skip
        return x


class Densify(nn.Module):
    """Norm, fill of the hidden positions with a learned token, projection (docs/sources.md 3.2).

    Args:
        in_channels: channels of the backbone's map.
        out_channels: decoder width at this level.
        kernel: of the projection; 1 with equal widths means no projection.
        norm_cfg: norm of the map.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, in_channels)
        self.mask_token = nn.Parameter(torch.zeros(1, in_channels, 1, 1))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.project = (
            nn.Identity()
            if kernel == 1 and in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        )

    def forward(self, x: FeatureMap) -> Tensor:
        """(B, in_channels, h, w), sparse or dense, to dense (B, out_channels, h, w)."""
        x = self.norm(x)
        if isinstance(x, SparseFeatureMap):
            x = x.to_dense(fill=self.mask_token.to(x.dtype))
        return self.project(x)


def _up_block(in_channels: int, out_channels: int, norm_cfg: dict) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, in_channels, 4, stride=2, padding=1),
        nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
        build_norm_layer(norm_cfg, in_channels),
        nn.ReLU6(inplace=True),
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        build_norm_layer(norm_cfg, out_channels),
    )


def _count_blocks(*, stride: int, out_stride: int, width: int) -> int:
    for key, value in (('stride', stride), ('out_stride', out_stride)):
        if value < 1 or value & (value - 1):
            raise ValueError(f'neck.{key} must be a power of two (32, 16, 8, ...), got {value}.')
    if out_stride > stride:
        raise ValueError(
            f'neck.out_stride {out_stride} is coarser than the coarsest map (neck.stride '
            f'{stride}): choose a power of two up to {stride}.'
        )
    blocks = int(math.log2(stride // out_stride))
    if width < 1 or width % 2**blocks:
        raise ValueError(
            f'neck.width {width} must divide by {2**blocks}: the channels are halved by each of '
            f'the {blocks} up-blocks between strides {stride} and {out_stride}.'
        )
    return blocks
