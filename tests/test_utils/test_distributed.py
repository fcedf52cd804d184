from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest
import torch
from mmengine.config import Config

from hgkd_mm.utils.distributed import leave_distributed, start_distributed

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='this is about machines without a GPU'
)


def world_of_one() -> dict[str, str]:
    """The environment that torchrun gives its one process."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    world = dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    return {name: str(value) for name, value in world.items()}


def test_without_a_launcher_nothing_changes() -> None:
    config = Config(dict(launcher='none', model=dict(norm_cfg=dict(type='SyncBN'))))
    start_distributed(config)
    leave_distributed(config)  # There is no group to leave, and the process goes on.
    assert config.model.norm_cfg.type == 'SyncBN'
    assert not torch.distributed.is_initialized()


def test_slurm_is_refused() -> None:
    with pytest.raises(RuntimeError, match="launcher 'slurm' needs a GPU"):
        start_distributed(Config(dict(launcher='slurm')))


def test_torchrun_gets_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world_of_one().items():
        monkeypatch.setenv(name, value)
    heads = [dict(norm_cfg=dict(type='SyncBN', eps=1e-3))]
    config = Config(
        dict(
            launcher='pytorch',
            sync_bn='torch',
            find_unused_parameters=True,
            model=dict(heads=heads, act=dict(type='ReLU')),
        )
    )
    start_distributed(config)
    try:
        assert torch.distributed.get_backend() == 'gloo'
    finally:
        # A group of another kind, such as NCCL's, is taken down and the process goes on.
        monkeypatch.setattr(torch.distributed, 'get_backend', lambda: 'nccl')
        leave_distributed(config)
    assert not torch.distributed.is_initialized()
    assert config.model == dict(
        heads=[dict(norm_cfg=dict(type='BN', eps=1e-3))], act=dict(type='ReLU')
    )
    assert config.sync_bn is None
    assert config.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )


@pytest.mark.slow
def test_gloo_lets_go_of_tensors_late_and_the_run_still_ends_well() -> None:
    # The function of atexit keeps the interpreter's lock, so that gloo's thread asks for it
    # when the interpreter is ending.
    code = """
        import atexit, sys, time, torch
        from mmengine.config import Config
        from hgkd_mm.utils.distributed import leave_distributed, start_distributed

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
