from pathlib import Path

import pytest
import torch
from helpers.ranks import run_two_ranks
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hgkd_mm.engine import NonFiniteError, NonFiniteLossHook


class Ones(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return {'inputs': torch.ones(2)}


class Breaking(BaseModel):
    """Its similarity loss turns to ``value`` at one iteration, or its weights do."""

    def __init__(self, *, iteration: int, value: float, breaks: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.iteration, self.value, self.breaks = iteration, value, breaks
        self.calls = 0

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        self.calls += 1
        output = self.linear(inputs).mean()
        losses = {'loss_feat': output.square(), 'loss_sim': output.abs(), 'similarity': output}
        if self.calls == self.iteration and self.breaks == 'loss':
            losses['loss_sim'] = losses['loss_sim'].detach() * 0 + self.value
        if self.breaks == 'metric':
            losses['similarity'] = losses['similarity'] * float('nan')
        if self.calls == self.iteration and self.breaks == 'weights':
            # A finite loss whose gradient is infinite, as sqrt has at zero.
            losses['loss_sim'] = (self.linear.weight * 0).sum().sqrt()
        return losses


def train(
    work_dir: Path, model: Breaking, *, interval: int = 50, checkpoint: dict | None = None
) -> Runner:
    """Three epochs of four iterations, one checkpoint kept."""
    defaults = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(Ones(), batch_size=1, collate_fn=default_collate),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        custom_hooks=[dict(type='NonFiniteLossHook', interval=interval)],
        default_hooks=dict(checkpoint=defaults | (checkpoint or {})),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )
    runner.train()
    return runner


def checkpoints(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob('*.pth'))


def test_bad_loss_is_named_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    model = Breaking(iteration=6, value=float('-inf'), breaks='loss')
    with pytest.raises(NonFiniteError) as caught:
        train(work_dir, model)
    message = str(caught.value)
    assert 'On rank 0: loss_sim = -inf at iteration 6.' in message
    assert 'optim_wrapper.optimizer.lr' in message and str(work_dir) in message
    # Noticed at the end of the epoch, before CheckpointHook removes the old file.
    assert model.calls == 8
    assert checkpoints(work_dir) == ['epoch_1.pth']


def test_interval_says_how_soon_it_stops(tmp_path: Path) -> None:
    model = Breaking(iteration=5, value=float('nan'), breaks='loss')
    with pytest.raises(NonFiniteError, match='at iteration 5'):
        train(tmp_path / 'run', model, interval=3)
    assert model.calls == 6


def test_weights_broken_by_a_finite_loss(tmp_path: Path) -> None:
    model = Breaking(iteration=8, value=0.0, breaks='weights')
    with pytest.raises(NonFiniteError, match='linear.weight .*iteration 8'):
        train(tmp_path / 'run', model)
    assert checkpoints(tmp_path / 'run') == ['epoch_1.pth']


def test_checkpoints_that_count_iterations(tmp_path: Path) -> None:
    model = Breaking(iteration=5, value=float('inf'), breaks='loss')
    with pytest.raises(NonFiniteError, match='loss_sim = inf at iteration 5'):
        train(tmp_path / 'run', model, checkpoint=dict(by_epoch=False, interval=3))
    assert model.calls == 6
    assert checkpoints(tmp_path / 'run') == ['iter_3.pth']


def test_a_healthy_run_is_left_alone(tmp_path: Path) -> None:
    # A metric without 'loss' in its name is not differentiated, and may be NaN.
    model = Breaking(iteration=0, value=0.0, breaks='metric')
    model.register_buffer('attention_mask', torch.full((2, 2), float('-inf')).triu(1))
    train(tmp_path / 'run', model, interval=1)
    assert model.calls == 12
    assert checkpoints(tmp_path / 'run') == ['epoch_3.pth']


def test_last_guard_refuses_to_write_broken_weights(tmp_path: Path) -> None:
    runner = train(tmp_path / 'run', Breaking(iteration=0, value=0.0, breaks='none'))
    runner.save_checkpoint(str(tmp_path), 'good.pth')
    runner.model.linear.bias.data.fill_(float('nan'))
    with pytest.raises(NonFiniteError, match='linear.bias'):
        runner.save_checkpoint(str(tmp_path), 'bad.pth')
    assert checkpoints(tmp_path) == ['good.pth']


@pytest.mark.parametrize('name', ['norm.running_mean', 'mask_token', 'own_mask'])
def test_minus_infinity_elsewhere_is_broken(tmp_path: Path, name: str) -> None:
    model = Breaking(iteration=0, value=0.0, breaks='none')
    model.norm = nn.BatchNorm1d(2)
    model.register_buffer('mask_token', torch.zeros(2))
    model.own_mask = nn.Parameter(torch.zeros(2))
    model.state_dict()[name][0] = -torch.inf
    with pytest.raises(NonFiniteError, match=name):
        train(tmp_path / 'run', model)
    assert checkpoints(tmp_path / 'run') == []


def test_interval_out_of_range() -> None:
    with pytest.raises(ValueError, match='NonFiniteLossHook.interval'):
        NonFiniteLossHook(interval=0)


def test_all_ranks_stop_when_one_breaks(tmp_path: Path) -> None:
    run_two_ranks(Path(__file__).with_name('non_finite_worker.py'), tmp_path)
    messages = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    # Broken at iteration 3, noticed at the check of iteration 4, by both.
    assert messages[0].startswith('4 Training stopped. On rank 1: loss_sim = inf at iteration 3.')
    assert messages[0] == messages[1]
