from __future__ import annotations

import pytest
from mmengine.config import Config

from hgkd_mm.utils.iterations import scaled_iterations


def make_config(**changes: object) -> Config:
    defaults = dict(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=900, val_interval=50),
        param_scheduler=[
            dict(type='LinearLR', by_epoch=False, begin=0, end=10),
            dict(type='MultiStepLR', by_epoch=False, milestones=[600, 800], begin=10, end=900),
            dict(type='CosineAnnealingLR', T_max=12, end=12),
        ],
        default_hooks=dict(checkpoint=dict(by_epoch=False, interval=50)),
    )
    return Config({**defaults, **changes})


def test_all_that_is_counted_in_iterations_is_scaled() -> None:
    config = make_config()
    options = scaled_iterations(config, 4)
    assert options == {
        'train_cfg.max_iters': 3600,
        'train_cfg.val_interval': 200,
        'param_scheduler.0.end': 40,
        'param_scheduler.1.begin': 40,
        'param_scheduler.1.milestones': [2400, 3200],
        'param_scheduler.1.end': 3600,
        'default_hooks.checkpoint.interval': 200,
    }
    config.merge_from_dict(options)
    assert config.param_scheduler[1].milestones == [2400, 3200]
    assert scaled_iterations(config, 1 / 4)['train_cfg.max_iters'] == 900


def test_what_is_not_counted_stays() -> None:
    assert scaled_iterations(make_config(), 1) == {}
    assert scaled_iterations(Config(), 2) == {}
    by_epoch = dict(type='EpochBasedTrainLoop', max_epochs=12)
    assert scaled_iterations(make_config(train_cfg=by_epoch), 2) == {}
    never = dict(checkpoint=dict(by_epoch=False, interval=-1))
    options = scaled_iterations(make_config(default_hooks=never), 2)
    assert 'default_hooks.checkpoint.interval' not in options


@pytest.mark.parametrize('schedule', [None, dict(type='PolyLR', by_epoch=False, end=900)])
def test_a_schedule_alone_or_none(schedule: dict | None) -> None:
    options = scaled_iterations(make_config(param_scheduler=schedule), 0.5)
    assert options.get('param_scheduler.end') == (schedule and 450)
