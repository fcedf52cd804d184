"""Boxes and regions in float32 where the network around them computes in bfloat16.

mmcv's RoIAlign and NMS know float32 and float16, and stop at what ``BF16OptimWrapper``
(``tools/train.py --amp``) makes. Boxes would suffer as well: mmdet lays anchors in the precision of
the scores, and between 512 and 1024 px a bfloat16 has steps of 4 px. In a float32 training both
classes do what their parents do.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class FloatRPNHead(RPNHead):
    """mmdet's ``RPNHead`` with scores and box offsets in float32. Takes the same arguments."""

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and box offsets.

        Args:
            x: Maps (B, C, H, W), one a level.

        Returns:
            Scores (B, anchors, H, W) and offsets (B, 4 anchors, H, W) of each level.
        """
        scores, offsets = super().forward(x)
        return [score.float() for score in scores], [offset.float() for offset in offsets]


@MODELS.register_module()
class FloatRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor`` on float32 maps. Takes the same arguments."""

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Cuts out regions.

        Args:
            feats: Maps (B, C, H, W), one a level.
            rois: (N, 5): index of the image and corners in pixels.
            roi_scale_factor: Regions are enlarged by it, if given.

        Returns:
            (N, C, h, w) in float32.
        """
        return super().forward(tuple(feat.float() for feat in feats), rois, roi_scale_factor)
