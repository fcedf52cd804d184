from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import HOOKS
from torch import nn

from hgkd_mm.engine.hooks import IncompleteCheckpointError, WholeCheckpointHook


def check(checkpoint: dict) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    runner = SimpleNamespace(model=model, cfg=SimpleNamespace(load_from='a.pth'))
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)


@pytest.fixture
def state() -> dict:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).state_dict()


def test_whole_checkpoints_pass(state: dict) -> None:
    check(dict(state_dict=state))
    check(state)
    check({f'module.{name}': value for name, value in state.items()})
    del state['1.num_batches_tracked']
    check({**state, 'unknown.weight': torch.zeros(1), 'note': 'no tensor'})


def test_what_is_missing_or_of_another_shape_is_named(state: dict) -> None:
    state['0.weight'] = torch.zeros(3, 1, 1, 1)
    for name in ('0.bias', '1.weight', '1.bias', '1.running_mean'):
        del state[name]
    with pytest.raises(IncompleteCheckpointError) as error:
        check(dict(state_dict=state))
    assert str(error.value) == (
        'a.pth does not fit this config: of 6 weights 4 are missing (0.bias, 1.weight, 1.bias, '
        '1.running_mean) and 1 have another shape (0.weight). Give the config that the checkpoint '
        'was trained with.'
    )


def test_every_scope_finds_it() -> None:
    assert HOOKS.get('WholeCheckpointHook') is WholeCheckpointHook
