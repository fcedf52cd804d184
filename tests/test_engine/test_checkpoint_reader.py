"""Everything in MMEngine that opens a checkpoint opens it with the package's own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.pickles import MakesFolder
from mmengine.model import BaseModel
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

import hgkd_mm.engine  # noqa: F401  registers the reader
from hgkd_mm.utils.checkpoint_file import CheckpointError, register_reader


class Linear(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        return {'loss': self.linear(inputs).square().mean()}


def build(work_dir: Path) -> Runner:
    """Two epochs of two iterations."""
    runner = Runner(
        model=Linear(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(torch.ones(2, 2), collate_fn=lambda x: {'inputs': x[0]}),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-3)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )
    return runner


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As MMEngine's Runner writes it."""
    work_dir = tmp_path_factory.mktemp('run')
    build(work_dir).train()
    return work_dir / 'epoch_1.pth'


@pytest.fixture(autouse=True)
def reader_is_reset() -> Iterator[None]:
    yield
    register_reader()


def resume(runner: Runner, path: str) -> object:
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    return runner.resume(path)


ENTRIES: dict[str, Callable[[Runner, str], object]] = {
    'resume': resume,
    'load_from': lambda runner, path: runner.load_checkpoint(path),
    'init_cfg': lambda runner, path: PretrainedInit(path)(runner.model),
    'init_cfg, prefix': lambda runner, path: PretrainedInit(path, 'linear.')(runner.model.linear),
    'load_checkpoint': lambda runner, path: load_checkpoint(runner.model, path),
    'CheckpointLoader': lambda runner, path: CheckpointLoader.load_checkpoint(path),
}


@pytest.mark.parametrize('entry', ENTRIES)
def test_nothing_in_a_file_runs_unless_it_is_trusted(
    tmp_path: Path, checkpoint: Path, entry: str
) -> None:
    made = tmp_path / 'made'
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, 'beside': MakesFolder(made)}, tmp_path / 'more.pth')
    runner, enter, path = build(tmp_path / 'run'), ENTRIES[entry], str(tmp_path / 'more.pth')
    with pytest.raises(CheckpointError, match='makedirs.*--trust-checkpoint'):
        enter(runner, path)
    assert not made.exists()
    register_reader(trusted=True)
    enter(runner, path)
    assert made.exists()  # it would have run


def test_metadata_is_not_parsed_as_code(tmp_path: Path, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['config'] = f"import os\nos.mkdir('{tmp_path / 'made'}')"
    torch.save(content, tmp_path / 'more.pth')
    resume(build(tmp_path / 'run'), str(tmp_path / 'more.pth'))
    assert not (tmp_path / 'made').exists()


def test_a_run_goes_on_as_if_mmengine_had_read_the_file(tmp_path: Path, checkpoint: Path) -> None:
    runner = build(tmp_path / 'run')
    runner._load_from, runner._resume = str(checkpoint), True
    runner.train()
    want = torch.load(checkpoint.with_name('epoch_2.pth'), weights_only=False)
    got = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    torch.testing.assert_close(got['state_dict'], want['state_dict'], rtol=0, atol=0)
    assert str(got['optimizer']) == str(want['optimizer'])
    assert got['param_schedulers'] == want['param_schedulers']
    histories = [
        {name: buffer.data[0].tolist() for name, buffer in c['message_hub']['log_scalars'].items()}
        for c in (got, want)
    ]
    for history in histories:
        for name in [name for name in history if 'time' in name]:
            del history[name]
    assert histories[0] == histories[1] and len(histories[0]['train/loss']) == 4
