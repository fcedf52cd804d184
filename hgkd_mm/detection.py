"""Parts of Mask R-CNN beside mmdet's: a pyramid for ViTs, and float32 where mmcv needs it.

Importing this registers them with mmdet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# registers LN2d, the norm of channels in (B, C, H, W)
import mmpretrain.models  # noqa: F401
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

# Detectron2's eps; mmpretrain's own is 1e-5
LAYER_NORM = dict(type='mmpretrain.LN2d', eps=1e-6)


@MODELS.register_module()
class FloatRPNHead(RPNHead):
    """mmdet's ``RPNHead`` with scores and box offsets in float32, for ``--amp``.

    mmcv's NMS stops at bfloat16. Boxes would suffer as well: mmdet lays anchors in the precision
    of the scores, and between 512 and 1024 px a bfloat16 has steps of 4 px.
    """

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores (B, anchors, H, W) and offsets (B, 4 anchors, H, W) of maps (B, C, H, W)."""
        scores, offsets = super().forward(x)
        return [score.float() for score in scores], [offset.float() for offset in offsets]


@MODELS.register_module()
class FloatRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor`` on float32 maps: mmcv's RoIAlign stops at bfloat16."""

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Regions (N, C, h, w) of maps (B, C, H, W); ``rois`` (N, 5): image and corners."""
        return super().forward(tuple(feat.float() for feat in feats), rois, roi_scale_factor)


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """The simple feature pyramid of Li et al. 2022 (arXiv 2203.16527), without top-down paths.

    A plain transformer has one map, of stride 16. Levels of stride 4, 8, 16 and 32 are made from
    it by two transposed convolutions with norm and GELU between, by one, by nothing, and by max
    pooling; each transposed convolution (2 x 2, stride 2) halves the channels. A 1x1 and a 3x3
    convolution without bias, both with a norm, end each level. Further levels take every second
    pixel of the last one, as FPN's do.

    Channels in between, norms, biases and torch's initialisation are those of Detectron2's
    ``SimpleFeaturePyramid``. mmdet has a class of this name in ``projects/ViTDet``, which it does
    not install; import one of the two.

    Args:
        in_channels: Of the map of stride 16; a multiple of 4.
        out_channels: Of all levels.
        num_outs: Levels, 4 or more. ViTDet's Mask R-CNN has 5, of strides 4 to 64.
        norm_cfg: Norm of all levels; `LAYER_NORM` unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        num_outs: int = 5,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_outs = num_outs
        norm_cfg = norm_cfg or LAYER_NORM
        half, quarter = in_channels // 2, in_channels // 4
        scales = (
            [
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                build_norm_layer(norm_cfg, half)[1],
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ],
            [nn.ConvTranspose2d(in_channels, half, 2, stride=2)],
            [],
            [nn.MaxPool2d(2)],
        )
        widths = (quarter, half, in_channels, in_channels)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *scale,
                nn.Conv2d(width, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
            )
            for scale, width in zip(scales, widths, strict=True)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, out_channels, h, w), h = 4 H, 2 H, H, H / 2, ..., of the last map (B, C, H, W).

        H and W are even for images padded to multiples of 32.
        """
        maps = [level(inputs[-1]) for level in self.levels]
        while len(maps) < self.num_outs:
            maps.append(F.max_pool2d(maps[-1], kernel_size=1, stride=2))
        return tuple(maps)
