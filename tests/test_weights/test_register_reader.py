"""Everything in MMEngine that opens a checkpoint opens it with the package's own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.pickles import MakesFolder
from mmengine.model import BaseModel
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hgkd_mm.weights.reading import CheckpointError, register_reader


class Linear(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        return {'loss': self.linear(inputs).square().mean()}


def build(work_dir: Path) -> Runner:
    """Two epochs of two iterations."""
    return Runner(
        model=Linear(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(torch.ones(2, 2), collate_fn=lambda x: {'inputs': x[0]}),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-3)),
        param_scheduler=dict(type='OneCycleLR', eta_max=0.1, total_steps=4, by_epoch=False),
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As MMEngine's Runner writes it."""
    build(tmp_path / 'first').train()
    return tmp_path / 'first' / 'epoch_1.pth'


@pytest.fixture(autouse=True)
def reader_is_registered() -> None:
    register_reader()


def resume(runner: Runner, path: str) -> object:
    runner.call_hook('before_run')
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    return runner.resume(path)


ENTRIES: dict[str, Callable[[Runner, str], object]] = {
    'resume': resume,
    'init_cfg, prefix': lambda runner, path: PretrainedInit(path, 'linear.')(runner.model.linear),
    'load_checkpoint': lambda runner, path: load_checkpoint(runner.model, path),
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


@pytest.mark.parametrize('own', [True, False])
def test_only_a_run_s_own_file_names_checkpoints_to_delete(
    tmp_path: Path, checkpoint: Path, own: bool
) -> None:
    content = torch.load(checkpoint, weights_only=False)
    # written in a folder that was moved since
    told = dict(best_ckpt='/moved/best_top1_epoch_1.pth', best_ckpt_x='/moved/best_gone.pth')
    content['message_hub']['runtime_info'] |= told | dict(keep_ckpt_ids=[1, 2], best_ckpt_y=3)
    torch.save(content, tmp_path / 'epoch_1.pth')
    best = tmp_path / 'best_top1_epoch_1.pth'
    best.touch()
    register_reader(own=[tmp_path] if own else [tmp_path / 'first'])
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    info = read['message_hub']['runtime_info']
    kept = {name: info[name] for name in info if name.startswith(('best_ckpt', 'keep'))}
    assert kept == (dict(best_ckpt=str(best), keep_ckpt_ids=[1, 2]) if own else {})


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    linear = nn.Linear(2, 1)
    state = {f'backbone.{k}': v.half() + 1 for k, v in linear.state_dict().items()}
    save_file(state, tmp_path / 'w.safetensors')
    PretrainedInit(str(tmp_path / 'w.safetensors'), 'backbone.')(linear)
    for name, value in linear.state_dict().items():
        torch.testing.assert_close(value, state[f'backbone.{name}'].float(), rtol=0, atol=0)


def test_every_scheme_of_mmengine_is_read_so() -> None:
    readers = set(CheckpointLoader._schemes.values())
    assert '' in CheckpointLoader._schemes and len(readers) == 1


def test_torch_that_refuses_the_reader_is_told(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(CheckpointError, match='TORCH_FORCE_WEIGHTS_ONLY_LOAD=1'):
        CheckpointLoader.load_checkpoint(str(checkpoint))
    save_file({'w': torch.ones(1)}, tmp_path / 'w.safetensors')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'w.safetensors')).keys() == {'w'}


def test_a_run_goes_on_as_if_mmengine_had_read_the_file(tmp_path: Path, checkpoint: Path) -> None:
    runner = build(tmp_path / 'run')
    runner._load_from, runner._resume = str(checkpoint), True
    runner.train()
    want = torch.load(checkpoint.with_name('epoch_2.pth'), weights_only=False)
    got = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    torch.testing.assert_close(got['state_dict'], want['state_dict'], rtol=0, atol=0)
    assert str(got['optimizer']) == str(want['optimizer'])
    states = [
        {name: value for name, value in c['param_schedulers'][0].items() if name != 'anneal_func'}
        for c in (got, want)
    ]
    assert states[0] == states[1]
    torch.testing.assert_close(got['ema_state_dict'], want['ema_state_dict'], rtol=0, atol=0)
    histories = [
        {name: buffer.data[0].tolist() for name, buffer in c['message_hub']['log_scalars'].items()}
        for c in (got, want)
    ]
    for history in histories:
        for name in [name for name in history if 'time' in name]:
            del history[name]
    assert histories[0] == histories[1] and len(histories[0]['train/loss']) == 4
