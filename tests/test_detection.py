"""Mask R-CNN's parts: float32 against mmdet's own, and the pyramid against plain torch.

The pyramid is written down from ViTDet's paper and Detectron2's widths.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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


def pyramid(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type='SimpleFPN', **settings))


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    """Over the channels of each pixel, by its definition."""
    mean = x.mean(1, keepdim=True)
    variance = x.var(1, unbiased=False, keepdim=True)
    scale, shift = (value.view(1, -1, 1, 1) for value in (layer.weight, layer.bias))
    return (x - mean) / (variance + 1e-6).sqrt() * scale + shift


def twice(x: Tensor, layer: nn.Module) -> Tensor:
    """A transposed 2 x 2 convolution of stride 2: each pixel becomes 2 x 2 of its own."""
    pixels = torch.einsum('bchw,coij->bohiwj', x, layer.weight)
    b, o, h, _, w, _ = pixels.shape
    return pixels.reshape(b, o, 2 * h, 2 * w) + layer.bias.view(1, -1, 1, 1)


def end(x: Tensor, layers: nn.Sequential) -> Tensor:
    narrow, first, smooth, second = layers
    assert narrow.bias is None and smooth.bias is None
    x = norm(torch.einsum('bchw,oc->bohw', x, narrow.weight[:, :, 0, 0]), first)
    return norm(F.conv2d(x, smooth.weight, padding=1), second)


def test_levels_are_the_papers() -> None:
    neck = pyramid(in_channels=16, out_channels=6).double()
    for weight in neck.parameters():  # norms begin as one and zero, which would hide them
        nn.init.normal_(weight)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    quarter, half, same, double = neck.levels
    middle = F.gelu(norm(twice(x, quarter[0]), quarter[1]))
    coarse = x.reshape(2, 16, 2, 2, 3, 2).amax((3, 5))
    expected = [
        end(twice(middle, quarter[3]), quarter[4:]),
        end(twice(x, half[0]), half[1:]),
        end(x, same),
        end(coarse, double[1:]),
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    maps = neck((torch.zeros(1), x))
    assert len(maps) == 5
    for level, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(level, reference)


def test_shapes_and_weights_of_vit_b() -> None:
    with torch.device('meta'):
        neck = pyramid(in_channels=768)
        maps = neck((torch.zeros(1, 768, 14, 20),))
    assert [tuple(m.shape) for m in maps] == [
        (1, 256, 56, 80),
        (1, 256, 28, 40),
        (1, 256, 14, 20),
        (1, 256, 7, 10),
        (1, 256, 4, 5),
    ]
    kernels = [[tuple(p.shape) for p in level.parameters() if p.ndim == 4] for level in neck.levels]
    smooth = (256, 256, 3, 3)
    assert kernels == [
        [(768, 384, 2, 2), (384, 192, 2, 2), (256, 192, 1, 1), smooth],
        [(768, 384, 2, 2), (256, 384, 1, 1), smooth],
        [(256, 768, 1, 1), smooth],
        [(256, 768, 1, 1), smooth],
    ]


def test_other_numbers_of_levels_and_norms() -> None:
    settings = dict(in_channels=8, out_channels=4, norm_cfg=dict(type='GN', num_groups=2))
    neck = pyramid(**settings, num_outs=4)
    assert len(neck((torch.zeros(1, 8, 4, 4),))) == 4
    assert {type(m) for m in neck.modules() if 'Norm' in type(m).__name__} == {nn.GroupNorm}
