"""Settings with which HGKD would not learn are refused when it is built."""

import pytest
from mmpretrain.registry import MODELS

import hgkd_mm.models  # noqa: F401  registers


def config(**backbone: object) -> dict:
    return dict(
        type='HGKD',
        backbone=dict(out_indices=(0, 1, 2, 3), **backbone),
        neck=dict(type='UNetDecoder', width=64),
        heads=dict(pixel=dict(type='PixelReconstructionHead')),
    )


def test_checkpointing_that_could_not_repeat_its_draws_is_refused() -> None:
    with pytest.raises(ValueError, match='drop_path_rate=0'):
        MODELS.build(config(type='ResNet', depth=18, with_cp=True, drop_path_rate=0.1))


def test_an_unknown_engine_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"model\.engine must be one of .*'tiles'.*got 'tile'"):
        MODELS.build(config(type='ResNet', depth=18) | dict(engine='tile'))
