import hashlib
import random
from pathlib import Path

import mmpretrain.models  # noqa: F401  registers the networks
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import Dataset

from hgkd_mm.export import ExportBackboneHook

TINY = dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4)


@DATASETS.register_module()
class ExportOnes(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        return {'inputs': torch.ones(3, 32, 32)}


@MODELS.register_module()
class ExportSmall(BaseModel):
    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.draws: list[float] = []

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        if mode == 'predict':
            return [0]
        self.draws.append(random.random() + np.random.rand() + torch.rand(()).item())
        return {'loss': self.backbone(inputs)[-1].square().mean()}


@METRICS.register_module()
class ExportScores(BaseMetric):
    """Given values, one a validation."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return {'score': self.scores.pop(0)}


def config(work_dir: Path, *, epochs: int = 4, checkpoint: dict | None = None, **hook: object):
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='ExportOnes'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    saving = dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_optimizer=False)
    return Config(
        dict(
            model=dict(type='ExportSmall', backbone=TINY),
            work_dir=str(work_dir),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=saving | (checkpoint or {})),
            custom_hooks=[dict(dict(type='ExportBackboneHook'), **hook)],
            randomness=dict(seed=0),
            default_scope='mmpretrain',
            # MMEngine keeps what it made under a name for the whole process
            experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{epochs}',
        )
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


def assert_export_of(checkpoint: Path) -> None:
    """The export's weights are the checkpoint's, and its metadata says so."""
    export = torch.load(
        checkpoint.with_name(f'backbone_mmpretrain_{checkpoint.name}'), weights_only=True
    )
    saved = torch.load(checkpoint, weights_only=False)
    wanted = {k: v for k, v in saved['state_dict'].items() if k.startswith('backbone.')}
    torch.testing.assert_close(export['state_dict'], wanted, rtol=0, atol=0)
    assert export['meta']['source'] == checkpoint.name
    assert export['meta']['source_sha256'] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert export['meta']['epoch'] == str(saved['meta']['epoch'])
    assert export['meta']['method'] == 'ExportSmall'


def test_follows_the_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    # interval of 2, the last of 5 epochs as well, 2 kept of 3
    saving = dict(interval=2)
    model = Runner.from_cfg(config(run, epochs=5, checkpoint=saving)).train()
    assert names(run) == [
        'backbone_mmpretrain_epoch_4.pth',
        'backbone_mmpretrain_epoch_5.pth',
        'epoch_4.pth',
        'epoch_5.pth',
    ]
    assert_export_of(run / 'epoch_4.pth')
    assert_export_of(run / 'epoch_5.pth')
    # and training is not disturbed
    settings = config(tmp_path / 'without', epochs=5, checkpoint=saving)
    settings.custom_hooks = []
    without = Runner.from_cfg(settings).train()
    assert model.draws == without.draws
    torch.testing.assert_close(model.state_dict(), without.state_dict(), rtol=0, atol=0)


def test_checkpoints_that_count_iterations(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    saving = dict(interval=2, by_epoch=False, max_keep_ckpts=1, save_last=False)
    Runner.from_cfg(config(run, epochs=5, checkpoint=saving)).train()
    assert names(run) == ['backbone_mmpretrain_iter_4.pth', 'iter_4.pth']


def test_goes_on_after_resuming(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    Runner.from_cfg(config(run, epochs=2)).train()
    mine = run / 'backbone_mmpretrain_epoch_9.pth'
    mine.write_bytes(b'has no checkpoint, so it is not of this hook')
    resumed = config(run, epochs=3)
    resumed.resume = True
    Runner.from_cfg(resumed).train()
    assert names(run) == [
        'backbone_mmpretrain_epoch_2.pth',
        'backbone_mmpretrain_epoch_3.pth',
        mine.name,
        'epoch_2.pth',
        'epoch_3.pth',
    ]
    assert_export_of(run / 'epoch_3.pth')


def test_the_best_one(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    saving = dict(max_keep_ckpts=1, save_best='score', rule='greater')
    settings = config(run, epochs=4, checkpoint=saving)
    settings.val_dataloader = settings.train_dataloader
    settings.val_cfg = dict()
    settings.val_evaluator = dict(type='ExportScores', scores=[1.0, 3.0, 2.0, 1.0])
    Runner.from_cfg(settings).train()
    assert names(run) == [
        'backbone_mmpretrain_best_score_epoch_2.pth',
        'backbone_mmpretrain_epoch_4.pth',
        'best_score_epoch_2.pth',
        'epoch_4.pth',
    ]
    assert_export_of(run / 'best_score_epoch_2.pth')
    assert_export_of(run / 'epoch_4.pth')


def test_a_full_disk_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError('No space left on device')

    monkeypatch.setattr('hgkd_mm.export.export.write_whole', full)
    run = tmp_path / 'run'
    Runner.from_cfg(config(run, epochs=2)).train()
    assert names(run) == ['epoch_1.pth', 'epoch_2.pth']
    log = next(run.glob('*/*.log')).read_text()
    assert f'The backbone of {run}/epoch_2.pth was not exported: No space left' in log


def test_a_network_without_a_counterpart_is_refused_before_training(tmp_path: Path) -> None:
    # named by its place, as a config does that imports hgkd_mm.engine only
    kind = 'hgkd_mm.export.ExportBackboneHook'
    runner = Runner.from_cfg(config(tmp_path / 'run', type=kind, target='torchvision'))
    with pytest.raises(ValueError, match='torchvision has no counterpart of ResNet'):
        runner.train()
    assert runner.iter == 0 and names(tmp_path / 'run') == []


def test_needs_checkpoints_in_a_local_folder_and_a_config(tmp_path: Path) -> None:
    settings = config(tmp_path / 'run')
    parts = ('work_dir', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'custom_hooks')
    runner = Runner(model=ExportSmall(TINY), **{name: settings[name] for name in parts})
    with pytest.raises(ValueError, match='model.backbone'):
        runner.train()
    settings.default_hooks.checkpoint = None
    with pytest.raises(ValueError, match='CheckpointHook'):
        Runner.from_cfg(settings).train()


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(target='onnx'), 'tools/export_backbone.py'),
        (dict(target='mmpretrain', suffix='.safetensors'), r'for mmpretrain ends in \.pth'),
    ],
)
def test_wrong_arguments(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ExportBackboneHook(**arguments)
