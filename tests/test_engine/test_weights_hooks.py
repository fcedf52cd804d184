from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmpretrain.models  # noqa: F401  registers the networks
import pytest
import torch
from helpers.report import report_at_start
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from hgkd_mm.engine import (
    IncompleteCheckpointError,
    PretrainedReportHook,
    PretrainedWeightsError,
    WholeCheckpointHook,
)

# Of TINY without counters: 20 convolutions and 20 norms of 4, so 100 weights.
TINY = dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4)
WHOLE = '100 of 100 weights (0 missing, 0 of another shape; 0 in the file not used)'


@DATASETS.register_module()
class ReportOnes(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        return {'inputs': torch.ones(3, 32, 32)}


@MODELS.register_module()
class ReportSmall(BaseModel):
    def __init__(self, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(32, 1)
        self.steps = 0

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        self.steps += 1
        pooled = self.backbone(inputs)[-1].mean((2, 3))
        return {'loss': self.head(pooled).square().mean()}


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Of a model that was trained before, and is wider than its backbone."""
    torch.manual_seed(4)
    model = ReportSmall(TINY)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
        else:
            value.fill_(7)
        assert name.startswith(('backbone.', 'head.'))
    return model.state_dict()


@pytest.fixture
def file(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'epoch_9.pth')
    return tmp_path / 'epoch_9.pth'


def keep(file: Path, weights: dict[str, Tensor], *without: str) -> None:
    few = {k: v for k, v in weights.items() if not any(part in k for part in without)}
    torch.save(dict(state_dict=few), file)


def init(file: Path, **settings: Any) -> dict:
    return dict(type='Pretrained', checkpoint=str(file)) | dict(prefix='backbone.') | settings


def start(init_cfg: object, *, backbone: Any = (), model: Any = (), **hook: Any) -> str:
    """What is logged when a model starts whose backbone has this ``init_cfg``."""
    network = ReportSmall({**TINY, 'init_cfg': init_cfg, **dict(backbone)}, **dict(model))
    return '\n'.join(report_at_start(network, **hook))


def refused(*args: Any, **settings: Any) -> str:
    with pytest.raises(PretrainedWeightsError) as stopped:
        start(*args, **settings)
    return str(stopped.value)


def config(work_dir: Path, file: Path, *, scope: str = 'mmpretrain', **changes: object) -> Config:
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='ReportOnes'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    return Config(
        dict(
            model=dict(type='ReportSmall', backbone={**TINY, 'init_cfg': init(file)}),
            work_dir=str(work_dir),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
            custom_hooks=[dict(type='PretrainedReportHook')],
            default_scope=scope,
            experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
            **changes,
        )
    )


def train(settings: Config) -> tuple[ReportSmall, str]:
    """The trained model and the log."""
    model = Runner.from_cfg(settings).train()
    return model, max(Path(settings.work_dir).glob('*/*.log')).read_text()


def train_refused(settings: Config) -> str:
    """The sentence that stopped the run before its first step."""
    runner = Runner.from_cfg(settings)
    with pytest.raises(PretrainedWeightsError) as stopped:
        runner.train()
    assert runner.model.steps == 0
    return str(stopped.value)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
def test_all_weights_are_those_of_the_file(
    tmp_path: Path, file: Path, weights: dict[str, Tensor], scope: str
) -> None:
    model, log = train(config(tmp_path / 'run', file, scope=scope))
    assert f'model.backbone starts from {file} with {WHOLE}.' in log
    assert model.steps == 1
    torch.testing.assert_close(
        model.backbone.conv1.weight, weights['backbone.conv1.weight'], rtol=0, atol=0
    )


def test_missing_names_stop_the_run(tmp_path: Path, file: Path, weights: dict[str, Tensor]) -> None:
    keep(file, weights, 'layer4')
    # there is no checkpoint to resume from
    message = train_refused(config(tmp_path / 'run', file, resume=True))
    # the last stage: 5 convolutions and 5 norms
    assert f'model.backbone starts from {file} with 75 of 100 weights (25 missing: ' in message
    assert 'missing: backbone.layer4.0.conv1.weight, ' in message and 'and 17 more' in message
    assert 'config key model.backbone.init_cfg.checkpoint' in message
    assert 'model.backbone.init_cfg.prefix' in message and 'allow_missing=True' in message


def test_other_shapes_stop_the_run(file: Path) -> None:
    message = refused(init(file), backbone=dict(stem_channels=8))
    # the stem's convolution and norm, what takes them, and a shortcut that is now needed
    assert '6 of another shape: backbone.conv1.weight is (4, 3, 7, 7), needed (8, 3, ' in message
    assert 'with 94 of 105 weights (5 missing: backbone.layer1.0.downsample.0' in message


def test_values_written_after_loading_stop_the_run(file: Path) -> None:
    # mmpretrain zeroes the last norm of each of the 8 blocks unless init_cfg is a dict
    message = refused([init(file)])
    assert 'No init_cfg of the model names a file' in start(None)
    assert 'with 84 of 100 weights (0 missing, 0 of another shape, 16 with other values' in message
    assert 'backbone.layer1.0.bn2.weight' in message and 'zero_init_residual' in message
    assert WHOLE in start([init(file)], backbone=dict(zero_init_residual=False))


def test_allowed_by_pattern_or_altogether(file: Path, weights: dict[str, Tensor]) -> None:
    keep(file, weights, 'layer4', 'layer3.1')
    some = refused(init(file), allow_missing=['backbone.layer4.*', 'head.*'])
    assert 'missing: backbone.layer3.1.conv1.weight' in some
    for allowed in (['backbone.layer4.*', 'backbone.layer3.1.*'], True):
        assert '65 of 100 weights (35 missing' in start(init(file), allow_missing=allowed)
    with pytest.raises(ValueError, match=r"allow_missing .*'head.\*'"):
        PretrainedReportHook(allow_missing='head.*')


def test_counters_of_norms_are_no_weights(file: Path, weights: dict[str, Tensor]) -> None:
    keep(file, weights | {'backbone.fc.weight': torch.ones(2)}, 'num_batches_tracked')
    log = start(init(file))
    assert '100 of 100 weights (0 missing' in log
    assert '1 in the file not used: backbone.fc.weight).' in log


def test_an_outer_module_loads_last(tmp_path: Path, file: Path, weights: dict[str, Tensor]) -> None:
    outer = {k: v + 1 for k, v in weights.items() if 'layer1' in k or 'head' in k}
    torch.save(outer, tmp_path / 'outer.pth')
    model = ReportSmall(
        {**TINY, 'init_cfg': init(file)}, init_cfg=init(tmp_path / 'outer.pth', prefix=None)
    )
    log = '\n'.join(report_at_start(model, allow_missing=['backbone.*']))
    assert f'model.backbone starts from {file} with 100 of 100 weights' in log
    # 4 convolutions and 4 norms of the first stage, weight and bias of the head
    assert f'model starts from {tmp_path}/outer.pth with 22 of 102 weights' in log
    name = 'backbone.layer1.0.conv1.weight'
    torch.testing.assert_close(model.state_dict()[name], weights[name] + 1, rtol=0, atol=0)


def test_what_cannot_be_read_or_picked_is_a_sentence(tmp_path: Path, file: Path) -> None:
    # MMEngine reads the file even if load_from replaces its weights
    settings = config(tmp_path / 'run', tmp_path / 'gone.pth', load_from=str(file))
    message = train_refused(settings)
    assert f'{tmp_path}/gone.pth' in message
    assert 'config key model.backbone.init_cfg.checkpoint' in message
    message = refused(init(file, prefix='encoder'))
    assert "'encoder.'" in message and 'config key model.backbone.init_cfg.prefix' in message
    assert 'it holds backbone (120), head (2)' in message
    file.write_bytes(file.read_bytes()[:-300])
    (tmp_path / 'w.safetensors').write_bytes(b'no weights')
    for path in (file, tmp_path / 'w.safetensors'):
        message = refused(init(path))
        assert str(path) in message and 'key model.backbone.init_cfg.checkpoint' in message


def test_runs_with_other_weights_are_exempt(
    tmp_path: Path, file: Path, weights: dict[str, Tensor]
) -> None:
    saving = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    train(config(tmp_path / 'run', file, default_hooks=saving))
    keep(file, weights, 'layer4')
    last = str(tmp_path / 'run' / 'epoch_1.pth')
    again = config(tmp_path / 'again', file, load_from=last, resume=True)
    again.train_cfg.max_epochs = 2
    model, log = train(again)
    assert 'Weights come from resume or load_from' in log and model.steps == 1


def test_tests_do_not_need_the_file(tmp_path: Path) -> None:
    settings = config(tmp_path / 'run', tmp_path / 'gone.pth')
    settings.update(test_dataloader=settings.train_dataloader, test_cfg={}, test_evaluator=[])
    runner = Runner.from_cfg(settings)
    runner.call_hook('before_run')
    assert runner.model.steps == 0


def check_whole(checkpoint: dict) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    runner = SimpleNamespace(model=model, cfg=SimpleNamespace(load_from='a.pth'))
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)


def test_only_whole_checkpoints_pass() -> None:
    state = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).state_dict()
    check_whole(dict(state_dict=state))
    check_whole(state)
    check_whole({f'module.{name}': value for name, value in state.items()})
    del state['1.num_batches_tracked']
    check_whole({**state, 'unknown.weight': torch.zeros(1), 'note': 'no tensor'})
    state['0.weight'] = torch.zeros(3, 1, 1, 1)
    for name in ('0.bias', '1.weight', '1.bias', '1.running_mean'):
        del state[name]
    with pytest.raises(IncompleteCheckpointError, match='a.pth .* 1 of 6 weights') as error:
        check_whole(dict(state_dict=state))
    assert '4 missing: 0.bias, 1.weight, 1.bias, 1.running_mean, ' in str(error.value)
    assert '1 of another shape: 0.weight' in str(error.value)
    with pytest.raises(IncompleteCheckpointError, match='a.pth .* 0 of 6 weights'):
        check_whole(dict(model=state))  # where MMEngine does not look
    assert HOOKS.get('WholeCheckpointHook') is WholeCheckpointHook
