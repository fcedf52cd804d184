"""tools/visualize.py and the function behind it, on a tiny config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.teachers import prefixed, save
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch import nn

from hgkd_mm.inspect import visualize

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=64)]


def config_of(model: dict, scope: str = 'mmpretrain') -> Config:
    return Config(
        dict(
            custom_imports=dict(imports=[f'{scope}.models', 'hgkd_mm.models']),
            default_scope=scope,
            model=model,
            train_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
        )
    )


def build(config: dict, scope: str = 'mmpretrain') -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


@pytest.fixture
def student(tmp_path: Path) -> tuple[Config, str]:
    """Config and checkpoint with a feature, a similarity and a pixel head."""
    teacher = mae_teacher(mae_file(tmp_path))
    model = hgkd(heads=dict(feat=FEAT, sim=SIM, pixel=PIXEL), teachers=dict(mim=teacher))
    network = build(model)
    network.heads['sim'].queue.enqueue(torch.randn(20, 24))
    return config_of(model), str(save(network.state_dict(), tmp_path / 'epoch_1.pth'))


def test_command_line(
    tool: Callable[[str], ModuleType], student: tuple[Config, str], folder: Path, tmp_path: Path
) -> None:
    config, checkpoint = student
    config.dump(tmp_path / 'config.py')
    arguments = [str(tmp_path / 'config.py'), checkpoint, str(folder)]
    arguments += ['--out', str(tmp_path / 'pictures')]
    main = tool('visualize').main

    def drawn(*flags: str) -> np.ndarray:
        main([*arguments, '--num', '2', *flags])
        return np.asarray(Image.open(tmp_path / 'pictures' / 'epoch_1.png'))

    first, second, other = drawn(), drawn(), drawn('--seed', '1')
    # image, what the student sees, 3 of features, similarities and pixels
    assert first.shape[1] == 7 * 208
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    # four maps and the image
    assert drawn('--backbone').shape[1] == 5 * 208
    with pytest.raises(SystemExit, match='--num'):
        main([*arguments, '--num', '0'])
    with pytest.raises(SystemExit, match='ratio'):
        main([*arguments, '--cfg-options', 'model.mask.ratio=1.5'])


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_networks_of_other_packages(scope: str, folder: Path, tmp_path: Path) -> None:
    types = dict(mmpretrain='ImageClassifier', mmdet='MaskRCNN', mmseg='EncoderDecoder')
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    config = config_of(dict(type=types[scope], backbone=backbone), scope)
    network = build(backbone, scope)
    checkpoint = str(save(prefixed('backbone.', network), tmp_path / 'x.pth'))
    made = visualize(config, checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.pdf')
    assert made.stat().st_size > 5000


def test_refusals(student: tuple[Config, str], folder: Path, tmp_path: Path) -> None:
    config, checkpoint = student

    def attempt(config: Config = config, **kwargs: Any) -> None:
        settings = dict(checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.png') | kwargs
        visualize(config, **settings)

    for settings, message in (
        (dict(out=tmp_path / 'p.docx'), 'docx'),
        (dict(config=config_of(hgkd(heads=dict(pixel=PIXEL)))), '9 in the file not used: heads'),
    ):
        with pytest.raises(ValueError, match=message):
            attempt(**settings)
    with pytest.raises(RuntimeError, match='gpu7'):
        attempt(device='gpu7')
    assert not list(tmp_path.glob('p.*'))
