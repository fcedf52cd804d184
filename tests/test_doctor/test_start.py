"""The doctor and the report at the start of training say the same of the same config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmpretrain.models  # noqa: F401  registers the networks
import pytest
import torch
from helpers.report import report_at_start
from mmengine.config import Config
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from torch import Tensor

from hgkd_mm.doctor import Section
from hgkd_mm.doctor.weights import look_at_checkpoints
from hgkd_mm.engine import PretrainedWeightsError
from hgkd_mm.weights.reading import register_reader

# 20 convolutions and 20 norms of 4: 100 weights and 20 counters
TINY = dict(type='ResNet', depth=18, stem_channels=4, base_channels=4)


class Model(BaseModule):
    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return Model(TINY).state_dict()


def config(**settings: Any) -> Config:
    init = dict(type='Pretrained', checkpoint='w.pth') | settings
    return Config(dict(model=dict(backbone=dict(**TINY, init_cfg=init))))


def by_doctor(settings: Config, *, build: bool = True) -> Section:
    section = Section(title='c')
    model = Model(settings.model.backbone.to_dict()) if build else None
    look_at_checkpoints(section, settings, model)
    return section


def by_training(settings: Config) -> str:
    """What the hook logs; raises what stops the run."""
    return '\n'.join(report_at_start(Model(settings.model.backbone.to_dict())))


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_a_prefix_with_and_without_its_dot(weights: dict[str, Tensor], prefix: str) -> None:
    torch.save(dict(state_dict=weights), 'w.pth')
    section = by_doctor(config(prefix=prefix))
    assert section.problems == []
    assert section.facts[1] == ('backbone filled', '100 of 100 weights')
    assert 'with 100 of 100 weights' in by_training(config(prefix=prefix))


def test_names_with_the_prefix_of_ddp(weights: dict[str, Tensor]) -> None:
    wrapped = {name.replace('backbone.', 'module.'): value for name, value in weights.items()}
    torch.save(wrapped | {'more': torch.ones(1)}, 'w.pth')
    assert by_doctor(config()).facts[1] == ('backbone filled', '100 of 100 weights')
    assert 'with 100 of 100 weights' in by_training(config())


@pytest.mark.parametrize('build', [True, False])
def test_weights_where_mmengine_does_not_look(weights: dict[str, Tensor], build: bool) -> None:
    torch.save(dict(model=weights, epoch=3), 'w.pth')
    (problem,) = by_doctor(config(prefix='backbone'), build=build).problems
    with pytest.raises(PretrainedWeightsError) as stopped:
        by_training(config(prefix='backbone'))
    assert problem == f'model.backbone.init_cfg.checkpoint: {stopped.value}'
    assert 'w.pth (config key model.backbone.init_cfg.checkpoint) holds no weights' in problem
    assert 'model, epoch' in problem


@pytest.mark.parametrize('build', [True, False])
def test_safetensors(weights: dict[str, Tensor], build: bool) -> None:
    save_file(weights, 'w.safetensors')
    settings = config(prefix='backbone', checkpoint='w.safetensors')
    register_reader()  # as tools/train.py does
    assert by_doctor(settings, build=build).problems == []
    assert 'with 100 of 100 weights' in by_training(settings)


def test_a_prefix_that_no_weight_has(weights: dict[str, Tensor]) -> None:
    torch.save(dict(state_dict=weights), 'w.pth')
    (problem,) = by_doctor(config(prefix='encoder')).problems
    with pytest.raises(PretrainedWeightsError) as stopped:
        by_training(config(prefix='encoder'))
    assert problem == f'model.backbone.init_cfg.checkpoint: {stopped.value}'
    assert "w.pth holds no weights under 'encoder.'" in problem
    assert '(config key model.backbone.init_cfg.prefix); it holds backbone (120).' in problem


def test_counters_are_no_weights(weights: dict[str, Tensor]) -> None:
    torch.save({k: v for k, v in weights.items() if 'num_batches' not in k}, 'w.pth')
    assert by_doctor(config(prefix='backbone')).facts == [
        ('model.backbone.init_cfg.checkpoint', "100 weights under 'backbone' in w.pth"),
        ('backbone filled', '100 of 100 weights'),
    ]
    assert 'with 100 of 100 weights' in by_training(config(prefix='backbone'))


def test_too_few_weights(weights: dict[str, Tensor]) -> None:
    few = {k: v for k, v in weights.items() if 'layer4' not in k}
    torch.save(dict(state_dict=few), 'w.pth')
    (problem,) = by_doctor(config(prefix='backbone')).problems
    with pytest.raises(PretrainedWeightsError, match=r'with 75 of 100 weights \(25 missing: '):
        by_training(config(prefix='backbone'))
    assert problem.startswith(
        'model.backbone.init_cfg.checkpoint: of backbone the file fills 75 of 100 weights (25 '
        'missing: layer4.0.conv1.weight, '
    )


def test_settings_that_are_a_list(weights: dict[str, Tensor]) -> None:
    settings = config()
    settings.model.backbone.init_cfg = [
        dict(type='Constant', val=0.0, layer='Linear'),
        dict(type='Pretrained', checkpoint='w.pth', prefix='encoder'),
    ]
    torch.save(weights, 'w.pth')
    (problem,) = by_doctor(settings).problems
    assert problem.startswith('model.backbone.init_cfg.1.checkpoint: ')
    assert 'config key model.backbone.init_cfg.1.prefix' in problem
    assert by_doctor(settings, build=False).problems == [problem]
    with pytest.raises(PretrainedWeightsError) as stopped:
        by_training(settings)
    assert problem.endswith(str(stopped.value))


def test_a_file_that_the_built_model_does_not_show(weights: dict[str, Tensor]) -> None:
    torch.save(weights, 'w.pth')
    settings = config(prefix='backbone')
    settings.model.other = dict(init_cfg=dict(type='Pretrained', checkpoint='gone.pth'))
    (problem,) = by_doctor(settings).problems
    assert problem.startswith('There is no checkpoint gone.pth, which model.other.init_cfg.')
