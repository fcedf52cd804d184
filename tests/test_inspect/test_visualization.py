"""tools/visualize.py and the function behind it, on a tiny config."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch import nn

from hgkd_mm.inspect import visualize

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=64)]


def config_of(model: dict, **kwargs: Any) -> Config:
    settings = dict(
        custom_imports=dict(imports=['mmpretrain.models', 'hgkd_mm.models']),
        default_scope='mmpretrain',
        model=model,
        train_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
    )
    return Config(settings | kwargs)


def saved(module: nn.Module, file: Path, prefix: str = '') -> str:
    weights = {f'{prefix}{name}': value for name, value in module.state_dict().items()}
    torch.save(dict(state_dict=weights, meta=dict(epoch=1)), file)
    return str(file)


def build(config: dict, scope: str = 'mmpretrain') -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    images = tmp_path / 'images'
    images.mkdir()
    for index in range(3):
        pixels = generator.integers(0, 256, (70 + 9 * index, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f'{index}.jpg')
    return images


@pytest.fixture
def student(tmp_path: Path) -> tuple[Config, str]:
    """Config and checkpoint with a feature, a similarity and a pixel head."""
    teacher = mae_teacher(mae_file(tmp_path))
    model = hgkd(heads=dict(feat=FEAT, sim=SIM, pixel=PIXEL), teachers=dict(mim=teacher))
    network = build(model)
    network.heads['sim'].queue.enqueue(torch.randn(20, 24))
    return config_of(model), saved(network, tmp_path / 'epoch_1.pth')


def test_command_line(
    student: tuple[Config, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = importlib.util.spec_from_file_location('visualize_tool', ROOT / 'tools/visualize.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    config, checkpoint = student
    config.dump(tmp_path / 'config.py')
    arguments = [str(tmp_path / 'config.py'), checkpoint, str(folder)]
    arguments += ['--out', str(tmp_path / 'pictures')]
    tool.main([*arguments, '--num', '2'])
    printed = capsys.readouterr().out
    assert '0 missing, 0 of another shape; 0 in the file not used' in printed
    assert '2 of 3 images' in printed and '2 of 4 cells' in printed
    picture = Image.open(tmp_path / 'pictures' / 'epoch_1.png')
    # 2 input, 3 feature and 2 pixel columns of 1.5 inches and a plot, with gaps; 2 rows.
    width = 7 * 1.5 + 2.7 + 4 * 0.08 + 3 * 0.3 + 2 * 0.15
    assert picture.width == pytest.approx(130 * width, abs=2)
    # Headings, 2 rows with captions, an axis, and at least a line for each of 5 notes.
    height = 0.15 + 0.36 + 0.24 + 0.38 + 2 * (1.5 + 0.2) + 0.3 + 5 * 0.17 + 0.15
    assert 130 * height - 1 < picture.height < 130 * height + 80
    with pytest.raises(SystemExit, match='--num'):
        tool.main([*arguments, '--num', '0'])
    with pytest.raises(SystemExit, match='ratio'):
        tool.main([*arguments, '--cfg-options', 'model.mask.ratio=1.5'])


def test_the_seed_decides(student: tuple[Config, str], folder: Path, tmp_path: Path) -> None:
    config, checkpoint = student
    settings = dict(checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.png', count=2)

    def drawn(seed: int) -> np.ndarray:
        return np.asarray(Image.open(visualize(config, seed=seed, **settings).path))

    first, second, other = drawn(0), drawn(0), drawn(1)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_only_the_backbone_of_the_same_checkpoint(
    student: tuple[Config, str], folder: Path, tmp_path: Path
) -> None:
    config, checkpoint = student
    settings = dict(checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.png')
    made = visualize(config, size=(64, 96), backbone_only=True, **settings)
    assert made.images.pictures.shape == (3, 64, 96, 3)
    assert not made.fit.lacking and any('heads.sim' in name for name in made.fit.unused)
    assert '64 x 96' in made.notes[0]


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_networks_of_other_packages(scope: str, folder: Path, tmp_path: Path) -> None:
    types = dict(mmpretrain='ImageClassifier', mmdet='MaskRCNN', mmseg='EncoderDecoder')
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    imports = dict(imports=[f'{scope}.models'])
    model = dict(type=types[scope], backbone=backbone)
    config = config_of(model, default_scope=scope, custom_imports=imports)
    network = build(backbone, scope)
    checkpoint = saved(network, tmp_path / 'x.pth', 'backbone.')
    made = visualize(config, checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.png')
    # 20 convolutions, 20 norms of 4
    assert made.fit.loaded == made.fit.total == 100
    assert made.path.stat().st_size > 5000


def test_refusals(student: tuple[Config, str], folder: Path, tmp_path: Path) -> None:
    config, checkpoint = student

    def attempt(config: Config = config, **kwargs: Any) -> None:
        settings = dict(checkpoint=checkpoint, folder=folder, out=tmp_path / 'p.png') | kwargs
        visualize(config, **settings)

    with pytest.raises(ValueError, match=r'\.docx'):
        attempt(out=tmp_path / 'p.docx')
    with pytest.raises(RuntimeError, match='gpu7'):
        attempt(device='gpu7')
    with pytest.raises(ValueError, match='90 x 90'):
        attempt(size=(90, 90))
    with pytest.raises(ValueError, match=r'model\.backbone'):
        attempt(Config(dict(model=dict(type='GAN'))))
    with pytest.raises(ValueError, match=r"model\.type='Unknown'"):
        attempt(config_of(dict(type='Unknown', backbone={})))
    with pytest.raises(ValueError, match='9 in the file not used: heads'):
        attempt(config_of(hgkd(heads=dict(pixel=PIXEL))))
    assert not (tmp_path / 'p.png').exists()
