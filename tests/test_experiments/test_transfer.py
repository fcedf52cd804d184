"""The transfer table on a handful of Scenes: options by hand, two tasks in earnest."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.experiments.transfer import (
    FROM_SCRATCH,
    TASKS,
    from_scratch,
    lengthened,
    read_metrics,
    report,
    task_options,
    transfer,
)

pytestmark = pytest.mark.slow

BY_NAME = {task.name: task for task in TASKS}
TINY = {
    'train_dataloader.batch_size': 4,
    **{
        f'{loader}_dataloader.{key}': value
        for loader in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
    'default_hooks.logger.interval': 1,
}


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A checkpoint as pre-training leaves it, of random weights."""
    torch.manual_seed(7)
    backbone = MODELS.build(dict(type='mmpretrain.ResNet', depth=18, zero_init_residual=False))
    state = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    state['heads.feat.weight'] = torch.zeros(1)
    path = tmp_path / 'epoch_4.pth'
    torch.save({'state_dict': state, 'meta': {}}, path)
    return path


@pytest.mark.parametrize('name', list(BY_NAME))
def test_options_move_the_data_and_set_the_start(name: str, scenes: Path) -> None:
    task = BY_NAME[name]
    options = task_options(task, scenes, Path('/a/b.pth'), seed=5)
    config = Config.fromfile(task.config)
    config.merge_from_dict(options)
    assert config.model.backbone.init_cfg.checkpoint == '/a/b.pth'
    assert config.model.backbone.init_cfg.prefix == 'backbone.'
    assert config.randomness.seed == 5
    assert Path(config.train_dataloader.dataset.data_root).is_dir()
    assert Path(config.val_dataloader.dataset.data_root).is_dir()
    if 'ann_file' in config.val_evaluator:
        assert Path(config.val_evaluator.ann_file).is_file()


@pytest.mark.parametrize('name', list(BY_NAME))
def test_from_scratch_is_how_students_begin(name: str) -> None:
    task = BY_NAME[name]
    config, twin = map(Config.fromfile, (task.config, from_scratch(task.config)))
    assert config.model.backbone.pop('init_cfg')
    assert config.to_dict() == twin.to_dict()
    # Kaiming's normal, as mmpretrain starts ResNets, not torch's uniform (largest/std 1.7)
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    backbone = MODELS.build(twin.model.backbone)
    backbone.init_weights()
    weight = backbone.layer3[0].conv1.weight.detach()
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert weight.abs().max() / weight.std() > 4


def test_a_share_of_the_labels_is_stratified_and_seeded(scenes: Path) -> None:
    init_default_scope('mmpretrain')
    task = dataclasses.replace(BY_NAME['classification'], label_share=0.25)
    chosen, again, other = (
        task_options(task, scenes, None, seed=seed)['train_dataloader.dataset.indices']
        for seed in (0, 0, 1)
    )
    # 240 images in 12 classes of 20, sorted by class
    assert Counter(index // 20 for index in chosen) == Counter({label: 5 for label in range(12)})
    assert chosen == again != other


def test_longer_training_ends_with_its_cosine() -> None:
    config = Config.fromfile(BY_NAME['detection'].config)
    before = config.train_cfg.max_iters
    config.merge_from_dict(lengthened(config, 2.5))
    assert config.train_cfg.max_iters == round(2.5 * before)
    cosine = config.param_scheduler[1]
    assert cosine.T_max == cosine.end == config.train_cfg.val_interval == round(2.5 * before)
    assert config.default_hooks.checkpoint.interval == round(2.5 * before)


def test_every_start_is_trained_once_and_scored(
    scenes: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = dict(
        work_dir=tmp_path / 'transfer',
        scenes=scenes,
        students={'student': student},
        seed=0,
        length=1 / 200,
        tasks=(BY_NAME['detection'], BY_NAME['segmentation']),
        options=TINY,
    )
    result = transfer(**how)
    assert list(result.scores) == [FROM_SCRATCH, 'student']
    assert all(list(row) == ['box AP', 'mask AP', 'mIoU'] for row in result.scores.values())
    assert all(0 <= value <= 100 for row in result.scores.values() for value in row.values())
    trained = {
        start: torch.load(job.checkpoint, weights_only=False)['state_dict']
        for start, job in result.jobs['segmentation'].items()
    }
    begun = torch.load(student, weights_only=True)['state_dict']
    # A step of warm-up hardly moves a weight, so where each came from can still be seen.
    weight = 'backbone.layer4.1.conv2.weight'
    torch.testing.assert_close(trained['student'][weight], begun[weight], atol=1e-3, rtol=0)
    assert (trained[FROM_SCRATCH][weight] - begun[weight]).abs().max() > 1e-2
    capsys.readouterr()
    assert transfer(**how).scores == result.scores
    assert capsys.readouterr().out.count('done before') == 4
    os.utime(student)  # pre-trained anew
    done = {start: job.done for start, job in result.jobs['segmentation'].items()}
    assert done == {FROM_SCRATCH: True, 'student': False}

    report(how['work_dir'], result, seed=0)
    assert 'mIoU' in capsys.readouterr().out
    summary = json.loads((how['work_dir'] / 'summary.json').read_text())
    values = {
        start: {column: figures['mean'] for column, figures in row.items()}
        for start, row in summary['scores'].items()
    }
    assert values == result.scores
    assert all(job.iterations == 2 for job in result.jobs['detection'].values())


def test_a_run_without_its_metric_is_named(tmp_path: Path) -> None:
    log = tmp_path / '20260101' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.0, "step": 1}\n')
    with pytest.raises(RuntimeError, match='has no mIoU'):
        read_metrics(BY_NAME['segmentation'], tmp_path)
