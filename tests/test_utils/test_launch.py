from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from hgkd_mm.utils.launch import load_config, merge_args, place_run, scaled_iterations


def merge(config: Config, **flags: Any) -> Config:
    """As tools/train.py does."""
    defaults = dict(
        config='configs/pretrain/some_config.py',
        work_dir=None,
        resume=None,
        amp=False,
        auto_scale_lr=False,
        launcher='none',
        trust_checkpoint=False,
    )
    args = argparse.Namespace(**{**defaults, **flags})
    place_run(config, args)
    return merge_args(config, args)


def make_config(**changes: Any) -> Config:
    defaults = dict(
        model=dict(type='Toy'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        train_dataloader=dict(batch_size=2, num_workers=0),
    )
    return Config({**defaults, **changes})


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / 'a.py'
    path.write_text(
        'batch_size = 4\ntrain_dataloader = dict()\n'
        "model = dict(neck=dict(width=4), heads=dict(feat=dict(type='A'), sim=dict(type='B')))\n"
    )
    return str(path)


def test_options_override_the_file(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = {'model.neck.width': 8, 'model.heads.sim': None, 'batch_size': 8}
    # MMEngine reads these where a config has them
    options |= {'randomness.seed': 1, 'find_unused_parameters': True}
    config = load_config(config_file, options)
    assert (config.model.neck.width, config.model.heads.sim, config.batch_size) == (8, None, 8)
    assert (config.randomness.seed, config.find_unused_parameters) == (1, True)
    told = ''.join(capsys.readouterr())
    assert 'batch_size is a variable' in told and 'randomness' not in told


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'train_dataloadr.batch_size': 8}, "'train_dataloadr'.*'train_dataloader'"),
        ({'bach_size': 8}, "'bach_size'.*'batch_size'"),
        ({'zzz': 8}, "'zzz'"),
        ({'model.heads.sims': None}, r"heads.sims=None takes away .* it has \['feat', 'sim'\]"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(
    config_file: str, option: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(config_file, option)


@pytest.mark.parametrize(
    ('in_config', 'flag', 'expected'),
    [(None, None, 'work_dirs/some_config'), ('mine', None, 'mine'), ('mine', 'flag', 'flag')],
)
def test_work_dir(in_config: str | None, flag: str | None, expected: str) -> None:
    config = make_config(**({'work_dir': in_config} if in_config else {}))
    assert merge(config, work_dir=flag).work_dir == expected


@pytest.mark.parametrize('asked_by', ['flag', 'config'])
def test_resume_goes_on_from_the_newest_of_its_own_folder(tmp_path: Path, asked_by: str) -> None:
    where = dict(work_dir=str(tmp_path / 'run'), resume='auto' if asked_by == 'flag' else None)
    start = dict(load_from='a.pth') if asked_by == 'flag' else dict(resume=True)
    anew = merge(make_config(**start), **where)
    assert (anew.resume, anew.get('load_from')) == (False, start.get('load_from'))

    (tmp_path / 'run').mkdir()
    for epoch in (1, 2):
        torch.save({'meta': {'iter': 5 * epoch}}, tmp_path / 'run' / f'epoch_{epoch}.pth')
    (tmp_path / 'run' / 'last_checkpoint').write_text('/elsewhere/epoch_7.pth')
    newest = merge(make_config(**start), **where)
    assert (newest.resume, newest.load_from) == (True, str(tmp_path / 'run' / 'epoch_2.pth'))

    hook = dict(default_hooks=dict(checkpoint=dict(out_dir=str(tmp_path / 'big'))))
    (tmp_path / 'big' / 'run').mkdir(parents=True)
    torch.save({'meta': {'iter': 15}}, tmp_path / 'big' / 'run' / 'epoch_3.pth')
    apart = merge(make_config(**start, **hook), **where)
    assert apart.load_from == str(tmp_path / 'big' / 'run' / 'epoch_3.pth')


def test_resume() -> None:
    named = merge(make_config(), resume='epoch_1.pth')
    assert (named.resume, named.load_from) == (True, 'epoch_1.pth')
    assert 'resume' not in merge(make_config())


def test_amp_names_the_bfloat16_wrapper() -> None:
    wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', optimizer=dict())
    config = merge(make_config(optim_wrapper=wrapper), amp=True)
    assert config.optim_wrapper == dict(type='BF16OptimWrapper', optimizer=dict())
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        merge(make_config(optim_wrapper=dict(type='ApexOptimWrapper')), amp=True)


def test_auto_scale_lr() -> None:
    config = merge(make_config(auto_scale_lr=dict(base_batch_size=2048)), auto_scale_lr=True)
    assert config.auto_scale_lr == dict(base_batch_size=2048, enable=True)


def test_dataloader_defaults_keep_what_is_set() -> None:
    config = make_config(
        default_scope='mmpretrain',
        train_dataloader=dict(num_workers=2),
        val_dataloader=dict(num_workers=0, collate_fn=dict(type='pseudo_collate')),
        test_dataloader=None,
    )
    merged = merge(config)
    assert merged.train_dataloader == dict(
        num_workers=2,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
        collate_fn=dict(type='default_collate'),
    )
    assert merged.val_dataloader.persistent_workers is False
    assert merged.val_dataloader.collate_fn.type == 'pseudo_collate'
    assert 'collate_fn' not in merge(make_config()).train_dataloader


def iteration_config(**changes: object) -> Config:
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
    config = iteration_config()
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
    assert scaled_iterations(iteration_config(), 1) == {}
    assert scaled_iterations(Config(), 2) == {}
    by_epoch = dict(type='EpochBasedTrainLoop', max_epochs=12)
    assert scaled_iterations(iteration_config(train_cfg=by_epoch), 2) == {}
    never = dict(checkpoint=dict(by_epoch=False, interval=-1))
    options = scaled_iterations(iteration_config(default_hooks=never), 2)
    assert 'default_hooks.checkpoint.interval' not in options


@pytest.mark.parametrize('schedule', [None, dict(type='PolyLR', by_epoch=False, end=900)])
def test_a_schedule_alone_or_none(schedule: dict | None) -> None:
    options = scaled_iterations(iteration_config(param_scheduler=schedule), 0.5)
    assert options.get('param_scheduler.end') == (schedule and 450)
