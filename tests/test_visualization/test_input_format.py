"""Normalisation against mmpretrain's own preprocessors."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from hgkd_mm.visualization.input_format import InputFormat

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
STATISTICS = dict(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0])


@pytest.mark.parametrize('rgb', [True, False])
def test_as_the_preprocessor_of_pre_training(rgb: bool) -> None:
    config = dict(type='SelfSupDataPreprocessor', to_rgb=rgb, **STATISTICS)
    input_format = InputFormat.of(dict(model=dict(data_preprocessor=config)))
    bgr = torch.from_numpy(PICTURES[..., ::-1].copy()).permute(0, 3, 1, 2)
    expected = MODELS.build(config)(dict(inputs=bgr, data_samples=None), False)['inputs']
    images = input_format.normalize(PICTURES)
    torch.testing.assert_close(images, expected)
    np.testing.assert_array_equal(input_format.restore(images), PICTURES)


def test_the_models_own_preprocessor_comes_first() -> None:
    outer = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)
    found = InputFormat.of(dict(model={}, data_preprocessor=outer))
    assert found == InputFormat(mean=(1, 2, 3), std=(4, 5, 6), rgb=True)
    inner = InputFormat.of(dict(model=dict(data_preprocessor=STATISTICS), data_preprocessor=outer))
    assert inner == InputFormat(mean=(120, 110, 100), std=(50, 60, 70), rgb=False)


def test_without_a_preprocessor_images_stay_as_loaded() -> None:
    images = InputFormat.of(dict(model={})).normalize(PICTURES)
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), PICTURES[..., ::-1])


def test_grey_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r'three channels.*mean=\(127.0,\)'):
        InputFormat.of(dict(model={}, data_preprocessor=dict(mean=[127], std=[1])))
