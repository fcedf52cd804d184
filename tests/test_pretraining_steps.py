"""The flagship and its baseline, by MMEngine's runner, on a handful of pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.zoo import full_arch, zoo_checkpoint
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from hgkd_mm.scenes import SceneFolder

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[1] / 'configs' / 'pretrain'


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four images to train on and two to test with."""
    root = tmp_path_factory.mktemp('imagenet')
    generator = np.random.default_rng(0)
    (root / 'meta').mkdir()
    for split, count in (('train', 4), ('val', 2)):
        (root / split).mkdir()
        for index in range(count):
            small = generator.integers(0, 256, (12, 15, 3), dtype=np.uint8)
            Image.fromarray(small).resize((250, 240)).save(root / split / f'{index}.JPEG')
        lines = [f'{index}.JPEG {index % 2}' for index in range(count)]
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return root


def runner(name: str, imagenet: Path, tmp_path: Path) -> Runner:
    """The config's runner: its widths, image size and hooks; two images a step, for one epoch."""
    config = Config.fromfile(CONFIGS / f'{name}.py')
    config.work_dir = str(tmp_path)
    config.experiment_name = f'{name}-{tmp_path.name}'
    config.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.train_dataloader.dataset.data_root = str(imagenet)
    config.train_cfg.max_epochs = 1
    config.default_hooks.logger.interval = 1
    # A checkpoint of half a gigabyte would show nothing here.
    config.default_hooks.checkpoint = None
    knn = config.custom_hooks[1]
    knn.update(k=1, num_workers=0)
    knn.train_dataset.data_root = knn.val_dataset.data_root = str(imagenet)
    for teacher in config.model.teachers.values():
        teacher.arch = full_arch(teacher.arch) | {'num_layers': 1}
        teacher.checkpoint = str(zoo_checkpoint(teacher, tmp_path / 'teacher.pth', noise=True))
        config.model.heads.sim.queue_size = 16
    return Runner.from_cfg(config)


def train(runner: Runner) -> dict[str, list[float]]:
    """What the run logged, iteration by iteration."""
    runner.train()
    runner.visualizer.close()
    # A weight without a gradient would stop DistributedDataParallel.
    stepped = runner.optim_wrapper.optimizer.state
    assert [n for n, p in runner.model.named_parameters() if p not in stepped] == []
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
    scalars = runner.message_hub.log_scalars
    return {key: list(buffer.data[0]) for key, buffer in scalars.items()}


def test_flagship(imagenet: Path, tmp_path: Path) -> None:
    run = runner('hgkd_r50_mae', imagenet, tmp_path)
    log = train(run)
    # Tokens of zero mean and unit variance, and an untrained decoder.
    assert all(0.5 < value < 3 for value in log['train/loss_feat'])
    # Nothing to be similar to at first; then the first step's two embeddings.
    assert log['train/loss_sim'][0] == 0
    assert 0 < log['train/loss_sim'][1] <= 2
    assert log['train/lr'][0] == pytest.approx(0.005 * 1.6e-3)
    assert run.model.heads['sim'].queue.num_stored == 4
    assert log['knn/top1'][0] in (0, 50, 100)
    assert not any('teacher' in key for key in run.model.state_dict())


def test_spark(imagenet: Path, tmp_path: Path) -> None:
    log = train(runner('spark_r50', imagenet, tmp_path))
    assert {key for key in log if 'loss' in key} == {'train/loss', 'train/loss_pixel'}
    # Cells of zero mean and unit variance, and a decoder whose last weights are small.
    assert all(0.9 < value < 1.5 for value in log['train/loss_pixel'])
    assert all(math.isfinite(value) for value in log['train/grad_norm'])


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    for _ in SceneFolder(out=folder, train=24, val=12).write(workers=1):
        pass
    return folder


def scenes_runner(name: str, scenes: Path, tmp_path: Path, **settings: object) -> Runner:
    """The config's runner with the teachers of assets/: two steps, then kNN of the students."""
    config = Config.fromfile(CONFIGS / f'{name}.py')
    config.merge_from_dict(settings)
    config.work_dir = str(tmp_path)
    config.experiment_name = f'{name}-{tmp_path.name}'
    config.train_dataloader.update(batch_size=12, num_workers=0, persistent_workers=False)
    config.train_dataloader.dataset.data_root = str(scenes)
    config.train_cfg.max_epochs = 1
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint = None
    labelled = Config.fromfile(CONFIGS.parent / '_base_/datasets/scenes_cls.py')
    splits = {f'{split}_dataset': labelled[f'cls_{split}_dataset'] for split in ('train', 'val')}
    for dataset in splits.values():
        dataset.data_root = str(scenes)
    config.custom_hooks.append(dict(type='KNNEvalHook', k=2, num_workers=0, **splits))
    return Runner.from_cfg(config)


def test_hybrid_distill_on_scenes(scenes: Path, tmp_path: Path) -> None:
    run = scenes_runner('hybrid_vit_scenes', scenes, tmp_path)
    log = train(run)
    terms = {key for key in log if key.startswith('train/loss_')}
    assert terms == {'train/loss_feat', 'train/loss_relation'}
    # Smooth L1 of unit variance, weighed down by its beta of 2; relations of two networks.
    assert all(0.05 < value < 1 for value in log['train/loss_feat'])
    assert all(0 < value < 3 for value in log['train/loss_relation'])
    assert 0 <= log['knn/top1'][0] <= 100


def test_hybrid_hgkd_on_scenes(scenes: Path, tmp_path: Path) -> None:
    run = scenes_runner('hybrid-hgkd_r18_scenes', scenes, tmp_path)
    log = train(run)
    terms = {key.removeprefix('train/loss_') for key in log if key.startswith('train/loss_')}
    assert terms == {'feat', 'sim', 'cl_feat', 'cl_sim', 'relation'}
    assert all(math.isfinite(value) for term in terms for value in log[f'train/loss_{term}'])
    assert [run.model.heads[name].queue.num_stored for name in ('sim', 'cl_sim')] == [24, 24]
    assert 0 <= log['knn/top1'][0] <= 100
