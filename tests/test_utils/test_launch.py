from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from hgkd_mm.utils.launch import (
    leave_distributed,
    load_config,
    merge_args,
    place_run,
    scaled_iterations,
    start_distributed,
)


def make_args(**changes: Any) -> argparse.Namespace:
    defaults = dict(
        config='configs/pretrain/some_config.py',
        work_dir=None,
        resume=None,
        amp=False,
        auto_scale_lr=False,
        launcher='none',
        trust_checkpoint=False,
    )
    return argparse.Namespace(**{**defaults, **changes})


def merge(config: Config, args: argparse.Namespace) -> Config:
    """As tools/train.py does."""
    place_run(config, args)
    return merge_args(config, args)


def make_config(**changes: Any) -> Config:
    defaults = dict(
        model=dict(type='Toy'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        train_dataloader=dict(batch_size=2, num_workers=0),
    )
    return Config({**defaults, **changes})


def world_of_one() -> dict[str, str]:
    """The environment that torchrun gives its one process."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    world = dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    return {name: str(value) for name, value in world.items()}


def test_absent_config_is_a_sentence() -> None:
    with pytest.raises(FileNotFoundError, match="no config file 'configs/typo.py'"):
        load_config('configs/typo.py')


def test_options_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.py'
    path.write_text("model = dict(neck=dict(width=4))\nwork_dir = 'x'\n")
    config = load_config(str(path), {'model.neck.width': 8})
    assert config.model.neck.width == 8
    assert config.work_dir == 'x'


def test_a_head_that_is_not_there_cannot_be_taken_away(tmp_path: Path) -> None:
    path = tmp_path / 'a.py'
    path.write_text("model = dict(heads=dict(feat=dict(type='A'), sim=dict(type='B')))\n")
    assert load_config(str(path), {'model.heads.sim': None}).model.heads.sim is None
    with pytest.raises(ValueError, match=r"heads.sims=None takes away .* it has \['feat', 'sim'\]"):
        load_config(str(path), {'model.heads.sims': None})


@pytest.mark.parametrize(
    ('in_config', 'flag', 'expected'),
    [(None, None, 'work_dirs/some_config'), ('mine', None, 'mine'), ('mine', 'flag', 'flag')],
)
def test_work_dir(in_config: str | None, flag: str | None, expected: str) -> None:
    config = make_config(**({'work_dir': in_config} if in_config else {}))
    assert merge(config, make_args(work_dir=flag)).work_dir == expected


@pytest.mark.parametrize(
    ('key', 'nearest'),
    [
        ('train_dataloadr.batch_size', "'train_dataloader'"),
        ('optim_wraper.optimizer.lr', "'optim_wrapper'"),
        ('bach_size', "'batch_size'"),
        ('zzz', ''),
    ],
)
def test_a_key_that_nothing_reads_is_refused(tmp_path: Path, key: str, nearest: str) -> None:
    path = tmp_path / 'a.py'
    path.write_text('batch_size = 4\nmodel = dict()\ntrain_dataloader = dict()\n')
    with pytest.raises(ValueError, match=rf"'{key.partition('.')[0]}'.*{nearest}"):
        load_config(str(path), {key: 8})


def test_keys_of_the_config_and_of_mmengine_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'a.py'
    path.write_text('batch_size = 4\nmodel = dict()\n')
    options = {'batch_size': 8, 'randomness.seed': 1, 'find_unused_parameters': True}
    config = load_config(str(path), options)
    assert (config.batch_size, config.randomness.seed) == (8, 1)
    assert config.find_unused_parameters
    told = ''.join(capsys.readouterr())
    assert 'batch_size is a variable' in told and 'randomness' not in told


@pytest.mark.parametrize('asked_by', ['flag', 'config'])
def test_resume_goes_on_from_the_newest_of_its_own_folder(tmp_path: Path, asked_by: str) -> None:
    where = dict(work_dir=str(tmp_path / 'run'), resume='auto' if asked_by == 'flag' else None)
    start = dict(load_from='a.pth') if asked_by == 'flag' else dict(resume=True)
    anew = merge(make_config(**start), make_args(**where))
    assert (anew.resume, anew.get('load_from')) == (False, start.get('load_from'))

    (tmp_path / 'run').mkdir()
    for epoch in (1, 2):
        torch.save({'meta': {'iter': 5 * epoch}}, tmp_path / 'run' / f'epoch_{epoch}.pth')
    (tmp_path / 'run' / 'last_checkpoint').write_text('/elsewhere/epoch_7.pth')
    newest = merge(make_config(**start), make_args(**where))
    assert (newest.resume, newest.load_from) == (True, str(tmp_path / 'run' / 'epoch_2.pth'))

    hook = dict(default_hooks=dict(checkpoint=dict(out_dir=str(tmp_path / 'big'))))
    (tmp_path / 'big' / 'run').mkdir(parents=True)
    torch.save({'meta': {'iter': 15}}, tmp_path / 'big' / 'run' / 'epoch_3.pth')
    apart = merge(make_config(**start, **hook), make_args(**where))
    assert apart.load_from == str(tmp_path / 'big' / 'run' / 'epoch_3.pth')


def test_resume(tmp_path: Path) -> None:
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.touch()
    named = merge(make_config(), make_args(resume=str(checkpoint)))
    assert (named.resume, named.load_from) == (True, str(checkpoint))

    assert 'resume' not in merge(make_config(), make_args())
    with pytest.raises(FileNotFoundError, match="no checkpoint 'epoch_9.pth'"):
        merge(make_config(), make_args(resume='epoch_9.pth'))


def test_amp_names_the_bfloat16_wrapper() -> None:
    wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', optimizer=dict())
    config = merge(make_config(optim_wrapper=wrapper), make_args(amp=True))
    assert config.optim_wrapper == dict(type='BF16OptimWrapper', optimizer=dict())


def test_amp_refuses_other_wrappers() -> None:
    config = make_config(optim_wrapper=dict(type='ApexOptimWrapper'))
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        merge(config, make_args(amp=True))


def test_auto_scale_lr() -> None:
    config = make_config(auto_scale_lr=dict(base_batch_size=2048))
    assert merge(config, make_args(auto_scale_lr=True)).auto_scale_lr.enable is True
    with pytest.raises(ValueError, match='base_batch_size'):
        merge(make_config(), make_args(auto_scale_lr=True))


def test_dataloader_defaults_keep_what_is_set() -> None:
    config = make_config(
        default_scope='mmpretrain',
        train_dataloader=dict(num_workers=2),
        val_dataloader=dict(num_workers=0, collate_fn=dict(type='pseudo_collate')),
        test_dataloader=None,
    )
    merged = merge(config, make_args())
    assert merged.train_dataloader == dict(
        num_workers=2,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
        collate_fn=dict(type='default_collate'),
    )
    assert merged.val_dataloader.persistent_workers is False
    assert merged.val_dataloader.collate_fn.type == 'pseudo_collate'
    assert 'collate_fn' not in merge(make_config(), make_args()).train_dataloader


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


def test_without_a_launcher_nothing_changes() -> None:
    config = make_config(launcher='none', model=dict(norm_cfg=dict(type='SyncBN')))
    start_distributed(config)
    leave_distributed(config)  # There is no group to leave, and the process goes on.
    assert config.model.norm_cfg.type == 'SyncBN'
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason='this is about machines without a GPU')
class TestWithoutGpu:
    def test_slurm_is_refused(self) -> None:
        with pytest.raises(RuntimeError, match="launcher 'slurm' needs a GPU"):
            start_distributed(make_config(launcher='slurm'))

    def test_torchrun_gets_gloo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in world_of_one().items():
            monkeypatch.setenv(name, value)
        config = make_config(
            launcher='pytorch',
            sync_bn='torch',
            find_unused_parameters=True,
            model=dict(heads=[dict(norm_cfg=dict(type='SyncBN', eps=1e-3))], act=dict(type='ReLU')),
        )
        start_distributed(config)
        try:
            assert torch.distributed.get_backend() == 'gloo'
        finally:
            # A group of another kind, such as NCCL's, is taken down and the process goes on.
            monkeypatch.setattr(torch.distributed, 'get_backend', lambda: 'nccl')
            leave_distributed(config)
        assert not torch.distributed.is_initialized()
        assert config.model.heads[0].norm_cfg == dict(type='BN', eps=1e-3)
        assert config.model.act.type == 'ReLU'
        assert config.sync_bn is None
        assert config.env_cfg.dist_cfg.backend == 'gloo'
        assert config.model_wrapper_cfg == dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=True,
            device_ids=None,
        )

    def test_gloo_lets_go_of_tensors_late_and_the_run_still_ends_well(self) -> None:
        # The function of atexit keeps the interpreter's lock, so that gloo's thread asks for it
        # when the interpreter is ending.
        code = """
            import atexit, sys, time, torch
            from mmengine.config import Config
            from hgkd_mm.utils.launch import leave_distributed, start_distributed

            def reduce_late():
                group.allreduce([torch.ones(3)])
                end = time.perf_counter() + 0.3
                while time.perf_counter() < end:
                    pass
                print('reduced')

            sys.setswitchinterval(1000)
            atexit.register(reduce_late)
            config = Config(dict(launcher='pytorch', model=dict()))
            start_distributed(config)
            group = torch.distributed.group.WORLD
            leave_distributed(config)
        """
        result = subprocess.run(
            [sys.executable, '-c', textwrap.dedent(code)],
            env={**os.environ, **world_of_one(), 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stdout) == (0, 'reduced\n'), result.stderr
