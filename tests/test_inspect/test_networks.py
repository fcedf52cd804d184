"""Weights of a checkpoint into a backbone, all of them or none."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models.backbones import ResNet
from torch import nn

from hgkd_mm.inspect.networks import load_student

SIZES = dict(depth=18, stem_channels=4, base_channels=4)
CONFIG = Config(dict(model=dict(type='ImageClassifier', backbone=dict(type='ResNet', **SIZES))))


def saved(weights: dict, folder: Path) -> str:
    torch.save(dict(state_dict=weights, meta=dict(epoch=3)), folder / 'x.pth')
    return str(folder / 'x.pth')


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ('prefix', 'other'), [('backbone.', 'heads.feat.weight'), ('', 'fc.weight')]
)
def test_the_backbone_of_a_checkpoint(tmp_path: Path, prefix: str, other: str) -> None:
    trained = ResNet(**SIZES)
    weights = {f'{prefix}{name}': value for name, value in trained.state_dict().items()}
    file = saved(weights | {other: torch.zeros(1)}, tmp_path)
    assert same(load_student(CONFIG, file).network, trained)
    # of a deeper network
    deeper = saved(weights | {f'{prefix}layer4.2.conv1.weight': torch.zeros(1)}, tmp_path)
    message = r'another network.*; 1 in the file not used: layer4\.2\.conv1\.weight\)'
    with pytest.raises(ValueError, match=message):
        load_student(CONFIG, deeper)
    # of a wider one
    wider = saved(ResNet(**SIZES | dict(base_channels=8)).state_dict(), tmp_path)
    with pytest.raises(ValueError, match='of another shape'):
        load_student(CONFIG, wider)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*argument CHECKPOINT'):
        load_student(CONFIG, str(tmp_path / 'y.pth'))
    (tmp_path / 'x.pth').write_bytes(b'junk')
    with pytest.raises(RuntimeError, match='not a readable weight file|--trust-checkpoint'):
        load_student(CONFIG, str(tmp_path / 'x.pth'))
