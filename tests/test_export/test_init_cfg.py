"""A checkpoint of pre-training goes straight into models of mmpretrain, mmdet and mmseg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mmpretrain.models  # noqa: F401  registers the networks
import mmseg.models  # noqa: F401
import pytest
import torch
from helpers.exports import random_backbone, write_checkpoint
from helpers.report import report_at_start
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmpretrain.registry import MODELS
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

RESNET = dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3))
CHANNELS = [64, 128, 256, 512]


def classifier(backbone: dict) -> nn.Module:
    head = dict(type='LinearClsHead', num_classes=3, in_channels=512)
    neck = dict(type='GlobalAveragePooling')
    config = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    return MODELS.build({**config, '_scope_': 'mmpretrain'})


def mask_rcnn(backbone: dict) -> nn.Module:
    register_all_modules(init_default_scope=False)
    config = get_config('mmdet::_base_/models/mask-rcnn_r50_fpn.py').model
    config.backbone = Config(dict(backbone=backbone)).backbone
    config.neck.in_channels = CHANNELS
    config.roi_head.bbox_head.update(fc_out_channels=8, num_classes=3)
    config.roi_head.mask_head.num_classes = 3
    return MMDET_MODELS.build({**config, '_scope_': 'mmdet'})


def upernet(backbone: dict) -> nn.Module:
    head = dict(
        type='UPerHead',
        in_channels=CHANNELS,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2),
        channels=8,
        num_classes=3,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    config = dict(type='EncoderDecoder', backbone=backbone, decode_head=head, test_cfg=dict())
    return MMSEG_MODELS.build({**config, '_scope_': 'mmseg'})


@pytest.mark.parametrize('make', [classifier, mask_rcnn, upernet])
def test_every_key_matches(tmp_path: Path, make: Callable[[dict], nn.Module]) -> None:
    source = random_backbone(RESNET)
    checkpoint = write_checkpoint(tmp_path / 'epoch_4.pth', source, RESNET)
    init = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    model = make({**RESNET, 'type': 'mmpretrain.ResNet', 'init_cfg': init})
    lines = report_at_start(model)
    assert lines == [
        f'model.backbone starts from {checkpoint} with 100 of 100 weights (0 missing, 0 of '
        'another shape; 0 in the file not used).'
    ]
    found = model.backbone.state_dict()
    torch.testing.assert_close(found, source.state_dict(), rtol=0, atol=0)
