"""Against mmdet's own, in float32; and where mmdet's own stop, in bfloat16."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor, nn

import hgkd_mm.detection  # noqa: F401  (registers)


def build(kind: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(type=kind, _scope_='mmdet', **copy.deepcopy(settings)))


def rpn(kind: str) -> nn.Module:
    return build(
        kind,
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[8, 16]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
        test_cfg=dict(
            nms_pre=50, max_per_img=10, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
        ),
    )


def extractor(kind: str) -> nn.Module:
    roi_layer = dict(type='RoIAlign', output_size=3, sampling_ratio=0)
    return build(kind, roi_layer=roi_layer, out_channels=8, featmap_strides=[8, 16])


@pytest.fixture
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 8, side, side, generator=generator) for side in (12, 6)]


def proposals(head: nn.Module, maps: list[Tensor]) -> Tensor:
    sample = DetDataSample(metainfo=dict(img_shape=(96, 96)))
    return head.predict(tuple(maps), [sample], rescale=False)[0].bboxes


ROIS = torch.tensor([[0, 4.0, 8.0, 40.0, 44.0], [0, 0.0, 0.0, 90.0, 90.0]])


def test_proposals(maps: list[Tensor]) -> None:
    expected = proposals(rpn('RPNHead'), maps)
    assert len(expected) == 10
    torch.testing.assert_close(proposals(rpn('FloatRPNHead'), maps), expected)
    with torch.autocast('cpu', torch.bfloat16):
        with pytest.raises(RuntimeError, match='BFloat16'):
            proposals(rpn('RPNHead'), maps)
        scores, offsets = rpn('FloatRPNHead')(maps)
        found = proposals(rpn('FloatRPNHead'), maps)
    assert {t.dtype for t in (*scores, *offsets, found)} == {torch.float32}
    # The best ones agree to a pixel or so; those behind them may change places.
    assert (torch.cdist(expected[:3], found).min(dim=1).values < 2).all()


def test_regions(maps: list[Tensor]) -> None:
    ours, theirs = extractor('FloatRoIExtractor'), extractor('SingleRoIExtractor')
    expected = theirs(maps, ROIS)
    torch.testing.assert_close(ours(maps, ROIS), expected)
    low = [m.bfloat16() for m in maps]
    torch.testing.assert_close(ours(low, ROIS), theirs([m.float() for m in low], ROIS))
    with pytest.raises(RuntimeError, match='BFloat16'):
        theirs(low, ROIS)
