"""Trainings of several processes, also on a machine without a GPU."""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def is_first_process(launcher: str) -> bool:
    """Whether this is the first process of a run, before there is a process group."""
    rank = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
    return int(os.environ.get(rank.get(launcher, ''), 0)) == 0


def start_distributed(config: Config) -> None:
    """Makes a config with a launcher start on a machine without a GPU too.

    MMEngine's Runner selects a GPU before it makes the process group, and hands one to DDP. So
    without one the group is made here, with gloo, DDP gets no device, and synchronized batch
    norms, which refuse CPU tensors, become plain ones (each process normalizes its own images).

    Raises:
        RuntimeError: A launcher other than torchrun without a GPU.
    """
    if config.launcher == 'none' or get_device() != 'cpu':
        return
    if config.launcher != 'pytorch':
        raise RuntimeError(
            f"The launcher '{config.launcher}' needs a GPU and torch sees none here; on the CPU "
            'use tools/dist_train.sh.'
        )
    wrapper = config.setdefault('model_wrapper_cfg', ConfigDict())
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault('find_unused_parameters', config.get('find_unused_parameters', False))
    wrapper.device_ids = None
    config.sync_bn = None
    _unsync_batch_norm(config.model)
    seconds = config.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=seconds))


def leave_distributed(config: Config) -> None:
    """Leaves the process group of a launcher; the last call of a run without an error.

    With gloo this ends the process with status 0, after the functions of `atexit` and without
    waiting for threads. An ordinary end aborts now and then ("terminate called without an active
    exception": 2 of 15 runs of two processes with torch 2.11, 1 of 40 after
    ``destroy_process_group``), and torchrun calls a finished training failed: gloo's threads live
    on where DDP holds the group, and one that frees a tensor while the interpreter ends cannot
    get its lock (pytorch/pytorch#190489).
    """
    if config.launcher == 'none':
        return
    if torch.distributed.get_backend() != 'gloo':
        torch.distributed.destroy_process_group()
        return
    # There is no public name for it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _unsync_batch_norm(node: Any) -> None:
    if isinstance(node, dict):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        for child in node.values():
            _unsync_batch_norm(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            _unsync_batch_norm(child)


def trained_model(runner: Runner) -> nn.Module:
    """The model of a runner, without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
