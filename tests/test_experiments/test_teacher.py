"""The small teachers: trained, exported, and loaded as teachers."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from safetensors import safe_open
from torch import nn

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.experiments import ASSETS
from hgkd_mm.experiments.students import HGKD_CONFIG
from hgkd_mm.experiments.teacher import CARRIED, TEACHERS, train_teacher
from hgkd_mm.experiments.training import folder_options

pytestmark = pytest.mark.slow

Options = dict[str, object]
MIM = Config.fromfile(HGKD_CONFIG).model.teachers.mim
CL = Config.fromfile(HGKD_CONFIG.with_name('hybrid_vit_scenes.py')).model.teachers.cl


def load(settings: ConfigDict, weights: Path, **changes: object) -> nn.Module:
    init_default_scope('mmpretrain')
    return MODELS.build(settings | dict(checkpoint=str(weights), **changes))


def test_the_carried_teacher_fits_the_config_and_is_small() -> None:
    teacher = load(MIM, CARRIED)
    assert teacher.embed_dim == 192 and teacher.grid((96, 96)) == (6, 6)
    assert CARRIED.stat().st_size < 10e6


def test_a_teacher_is_trained_exported_and_loaded(
    folder: Path, tiny: Options, tmp_path: Path
) -> None:
    options = tiny | folder_options(folder, TEACHERS['mae'])
    weights = train_teacher(tmp_path / 'run', data=folder, seed=3, options=options)
    assert weights.name == 'mae_scenes.safetensors'
    for view in ('full', 'visible'):
        assert load(MIM, weights, teacher_view=view).embed_dim == 192
    checkpoint = torch.load(tmp_path / 'run/training/epoch_1.pth', weights_only=False)
    with safe_open(weights, 'pt') as file:
        assert file.keys() == sorted(checkpoint['state_dict'])
        for key in file.keys():  # noqa: SIM118  not a mapping
            assert torch.equal(file.get_tensor(key), checkpoint['state_dict'][key].half())
        assert json.loads(file.metadata()['facts']) == {'seed': 3, 'data': folder.name}


def test_the_labelled_teacher_starts_from_the_mae_and_is_a_teacher(
    scenes: Path, tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    del tiny['train_dataloader.dataset']
    options = tiny | {'train_dataloader.batch_size': 120, 'train_cfg.val_interval': 1}
    how = dict(kind='supervised', data=scenes, options=options)
    weights = train_teacher(tmp_path / 'run', **how)
    with safe_open(weights, 'pt') as made, safe_open(CARRIED, 'pt') as start:
        for key in (f'backbone.layers.{layer}.attn.qkv.weight' for layer in range(6)):
            moved = (made.get_tensor(key) - start.get_tensor(key)).abs().max()
            # Two steps of a warm-up that begins at a thousandth of the learning rate.
            assert moved < 1e-3
    teacher = load(CL, weights)
    assert teacher.embed_dim == 192 and teacher.has_cls
    capsys.readouterr()
    train_teacher(tmp_path / 'run', **how)
    assert 'done before' in capsys.readouterr().out


def test_the_contrastive_teacher_needs_no_labels_and_is_a_teacher(
    folder: Path, tiny: Options, tmp_path: Path
) -> None:
    del tiny['train_dataloader.dataset']  # of one view
    weights = train_teacher(tmp_path / 'run', kind='contrastive', data=folder, options=tiny)
    with safe_open(weights, 'pt') as file:
        assert all(key.startswith('backbone.') for key in file.keys())  # noqa: SIM118
    for path in (weights, ASSETS / weights.name):
        assert load(CL, path).has_cls
