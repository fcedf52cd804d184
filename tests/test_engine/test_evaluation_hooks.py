import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hgkd_mm.engine import KNNEvalHook
from hgkd_mm.utils.work_dir import read_scalars

PIPELINE = [
    dict(type='LoadImageFromFile'),
    # Consumes random numbers, as the pipeline of a careless config would.
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]


class Noise(Dataset):
    """Training images whose content is drawn from the global generator."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        image = torch.randint(0, 256, (3, 8, 8)) + np.random.randint(9)
        return {'inputs': image, 'data_samples': DataSample()}


class Student(BaseModel):
    def __init__(self) -> None:
        super().__init__(data_preprocessor=SelfSupDataPreprocessor(mean=[128] * 3, std=[64] * 3))
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.modes: list[bool] = []

    def extract_feat(self, images: Tensor) -> tuple[Tensor]:
        return (self.norm(self.conv(images)),)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        self.modes.append(self.training)
        # The loss uses every generator that the hook might disturb.
        noise = torch.rand(()) + random.random()
        return {'loss_map': (F.relu(self.extract_feat(inputs)[0]) * noise).mean()}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, dict]:
    """Reddish and bluish images, which a network of any weights tells apart."""
    rng = np.random.default_rng(0)
    configs = {}
    for split, count in (('train', 12), ('val', 5)):
        for name, channel in (('blue', 2), ('red', 0)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8)
                pixels[..., channel] += 190
                Image.fromarray(pixels).save(folder / f'{index}.png')
        configs[f'{split}_dataset'] = dict(
            type='CustomDataset', data_root=str(tmp_path / split), pipeline=PIPELINE
        )
    return configs


def build_runner(
    work_dir: Path, hooks: list, *, epochs: int = 4, checkpoint: dict | None = None
) -> Runner:
    torch.manual_seed(0)
    return Runner(
        model=Student(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(Noise(), batch_size=2, collate_fn=default_collate),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=hooks,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=checkpoint),
        default_scope='mmpretrain',
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
    )


def hook_config(folders: dict[str, dict], **options: object) -> dict:
    defaults = dict(type='KNNEvalHook', interval=1, k=5, num_workers=0)
    return defaults | folders | options


def test_accuracy_reaches_log_visualizer_and_message_hub(
    tmp_path: Path, folders: dict[str, dict]
) -> None:
    config = hook_config(folders, interval=3, initial=True, max_train_samples=8)
    runner = build_runner(tmp_path / 'logged', [config])
    runner.train()
    curve = read_scalars(tmp_path / 'logged')['knn/top1']
    # Before the first step, after epoch 3 (9 iterations) and after the last (12).
    assert curve.steps.tolist() == [0, 9, 12]
    assert curve.values.tolist() == [100.0] * 3
    assert runner.message_hub.get_scalar('knn/top1').current() == 100.0
    log = next((tmp_path / 'logged').glob('*/*.log')).read_text()
    assert 'Epoch(knn) [3/4]  knn/top1: 100.00' in log
    assert '(k=5, 8 training and 10 validation images' in log


def test_training_is_not_disturbed(tmp_path: Path, folders: dict[str, dict]) -> None:
    watched = build_runner(tmp_path / 'watched', [hook_config(folders, initial=True)])
    watched_weights = {k: v.clone() for k, v in watched.train().state_dict().items()}
    after_watched = (random.random(), np.random.rand(), torch.rand(3))
    plain = build_runner(tmp_path / 'plain', [])
    plain_weights = plain.train().state_dict()
    assert after_watched[:2] == (random.random(), np.random.rand())
    assert torch.equal(after_watched[2], torch.rand(3))
    for name, weight in plain_weights.items():
        assert torch.equal(weight, watched_weights[name]), name
    assert watched.model.modes == [True] * 12


def test_iterations_can_be_counted(tmp_path: Path, folders: dict[str, dict]) -> None:
    config = hook_config(folders, interval=4, by_epoch=False)
    build_runner(tmp_path / 'iterations', [config], epochs=2).train()
    assert read_scalars(tmp_path / 'iterations')['knn/top1'].steps.tolist() == [4, 6]


def test_a_broken_picture_ends_neither_training_nor_its_checkpoint(
    tmp_path: Path, folders: dict[str, dict]
) -> None:
    work_dir = tmp_path / 'broken'
    checkpoint = dict(type='CheckpointHook', interval=1)
    runner = build_runner(work_dir, [hook_config(folders)], epochs=3, checkpoint=checkpoint)
    picture = tmp_path / 'val' / 'red' / '4.png'
    seen = {}

    class Breaking(Hook):
        priority = 'VERY_HIGH'

        def after_train_epoch(self, runner: Runner) -> None:
            seen[runner.epoch] = picture.read_bytes()
            picture.write_bytes(b'no picture' if runner.epoch == 1 else seen[0])

    runner.register_hook(Breaking())
    runner.train()
    assert read_scalars(work_dir)['knn/top1'].steps.tolist() == [3, 9]
    log = next(work_dir.glob('*/*.log')).read_text()
    assert log.index('Saving checkpoint at 2 epochs') < log.index('ERROR')
    assert re.search(r'ERROR.*knn/top1 of iteration 6.*4\.png', log)


def test_the_evaluation_before_the_first_step_still_stops(
    tmp_path: Path, folders: dict[str, dict]
) -> None:
    (tmp_path / 'val' / 'red' / '4.png').write_bytes(b'no picture')
    runner = build_runner(tmp_path / 'first', [hook_config(folders, initial=True)])
    with pytest.raises(AssertionError, match='4.png'):
        runner.train()
    assert runner.iter == 0


def test_wrapped_model(tmp_path: Path, folders: dict[str, dict]) -> None:
    runner = build_runner(tmp_path / 'wrapped', [])
    hook = KNNEvalHook(k=5, num_workers=0, **folders)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    hook.before_run(runner)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    try:
        runner.model = MMDistributedDataParallel(runner.model)
        hook.after_train_epoch(runner)  # not due: epoch 1 of interval 10
        assert 'knn/top1' not in runner.message_hub.log_scalars
        hook.interval = 1
        hook.after_train_epoch(runner)
        assert runner.message_hub.get_scalar('knn/top1').current() == 100.0
    finally:
        torch.distributed.destroy_process_group()


def test_wrong_folders_stop_the_run_before_training(
    tmp_path: Path, folders: dict[str, dict], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    unlabelled = folders['val_dataset'] | dict(with_label=False)
    (tmp_path / 'empty').mkdir()
    empty = folders['val_dataset'] | dict(data_root=str(tmp_path / 'empty'))
    missing = folders['val_dataset'] | dict(data_root=str(tmp_path / 'missing'))
    cases = [
        (dict(val_dataset=unlabelled), ValueError, r'KNNEvalHook\.val_dataset .*with_label=True'),
        (dict(val_dataset=empty), ValueError, r'KNNEvalHook\.val_dataset could not be built'),
        (dict(val_dataset=missing), FileNotFoundError, r'KNNEvalHook\.val_dataset\.data_root'),
        (dict(k=25), ValueError, r'k=25 .* train_dataset has 24 images'),
    ]
    for number, (options, error, message) in enumerate(cases):
        runner = build_runner(tmp_path / f'wrong{number}', [hook_config(folders, **options)])
        with pytest.raises(error, match=message):
            runner.train()
        assert runner.iter == 0
        assert runner.model.modes == []


@pytest.mark.parametrize('options', [dict(interval=0), dict(temperature=0.0)])
def test_numbers_out_of_range(options: dict) -> None:
    with pytest.raises(ValueError, match=f'KNNEvalHook.{next(iter(options))}'):
        KNNEvalHook(train_dataset={}, val_dataset={}, **options)
