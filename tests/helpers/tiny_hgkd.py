"""Configs of HGKD models that take milliseconds, with real teachers of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.teachers import DECODER, SIZES, mae_parts, prefixed, save

FEAT = dict(type='FeatureImitationHead', teacher='mim')
SIM = dict(type='SimilarityDistributionHead', teacher='mim', queue_size=40)
PIXEL = dict(type='PixelReconstructionHead')


def mae_file(folder: Path) -> Path:
    """An MAE of 64 px images, with its decoder."""
    encoder, decoder = mae_parts()
    weights = prefixed('backbone.', encoder) | prefixed('neck.', decoder)
    return save(weights, folder / 'mae.pth')


def mae_teacher(file: Path, **kwargs: Any) -> dict:
    """Config of a teacher from `mae_file`; 'mim' gives tokens of the decoder's width, 16."""
    decoder = dict(decoder=DECODER) if kwargs.get('teacher_view') == 'mim' else {}
    return dict(type='MIMTeacher', checkpoint=str(file), **SIZES, **decoder, **kwargs)


def hgkd(**kwargs: Any) -> dict:
    """Config of a ResNet of width 8 in cells of 32 px; heads and teachers are to be added."""
    settings = dict(
        type='HGKD',
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[120, 110, 100], std=[50, 60, 70], to_rgb=True
        ),
        backbone=dict(
            type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3)
        ),
        neck=dict(type='UNetDecoder', width=32),
        mask=dict(cell=32, ratio=0.5),
    )
    return settings | kwargs
