"""From a config and command-line flags to a Runner, with a launcher or without."""

from __future__ import annotations

import argparse
import atexit
import datetime
import difflib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from hgkd_mm.weights.reading import CheckpointError, register_reader

from .environment import MissingOpsError, has_ops, need_ops
from .files import is_remote
from .work_dir import checkpoint_folders, newest_checkpoint

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Top-level keys that MMEngine and its hooks read where a config has them.
_READ = {
    *inspect.signature(Runner).parameters,
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
} - {'cfg'}
# What schedules count in iterations.
_COUNTED = ('begin', 'end', 'T_max', 'milestones')


def add_common_flags(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Adds the flags that training and testing share; ``example`` is for ``--cfg-options``."""
    add_config_flag(parser, example=example)
    add_trust_flag(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    parser.add_argument('--launcher', choices=launchers, default='none', help='job launcher')
    # older launchers give it as a flag
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_config_flag(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Adds ``--cfg-options``, an empty mapping if it is not given."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help=f'override config values: {example}',
    )


def add_inspection_flags(parser: argparse.ArgumentParser, *, out: str, num: int) -> None:
    """Adds the flags of the tools that show what trained weights make of some images.

    Args:
        parser: Gets the flags.
        out: Help text of ``--out``.
        num: Default number of images.
    """
    add = parser.add_argument
    add('--out', required=True, metavar='PATH', help=out)
    add('--num', type=int, default=num, help=f'number of images ({num})')
    add('--size', type=int, help='of the images, in pixels; default: as in training')
    add('--seed', type=int, default=0, help='of what is drawn at random: images and masks (0)')
    add('--device', default='cpu', help='cpu, cuda, cuda:1, ...')
    add_trust_flag(parser)


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Adds ``--trust-checkpoint``."""
    trust = 'let checkpoints run pickled code if they cannot be read without'
    parser.add_argument('--trust-checkpoint', action='store_true', help=trust)


def check_device(device: str) -> None:
    """Makes sure that tensors can be put on the device of ``--device``, before any work is done.

    Raises:
        RuntimeError: There is no such device.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # what it is depends on how torch was built
        reason = str(error).split('\n')[0]
        raise RuntimeError(
            f'There is no device {device!r} here ({reason}): set --device.'
        ) from error


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file, and overrides values by dotted key (``--cfg-options``).

    Raises:
        FileNotFoundError: There is no such file.
        MissingOpsError: It is of MMDetection and mmcv has no compiled ops.
        ValueError: See `override`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no config file '{path}' (looked for from {Path.cwd()}); the repository's "
            'own are under configs/.'
        )
    # Before its custom_imports: mmdet, which they import, would stop with an error that does not
    # name the ops.
    if not has_ops():
        scope = Config.fromfile(path, import_custom_modules=False).get('default_scope')
        if scope == 'mmdet':
            need_ops(f"MMDetection, which {path} is for (default_scope='mmdet'),")
    config = Config.fromfile(path)
    override(config, options or {})
    return config


def override(config: Config, options: Mapping[str, Any]) -> None:
    """Writes overrides, by dotted key, into a config.

    Raises:
        ValueError: Nothing reads the first name of a key, or a head that is not there is taken
            away: a typo would otherwise train with the config as it was.
    """
    known = {*config, *_READ}
    for key, value in options.items():
        *path, name = key.split('.')
        if (first := key.partition('.')[0]) not in known:
            near = difflib.get_close_matches(first, known, n=1)
            raise ValueError(
                f"Nothing reads the config key '{first}' of {key}={value}"
                f'{f"; the nearest one is {near[0]!r}" if near else ""}.'
            )
        if first not in _READ:
            print_log(
                f'{key} is a variable of the config: what was made of it there keeps its value.',
                level=logging.WARNING,
            )
        if value is not None or path[-1:] != ['heads']:
            continue
        heads = functools.reduce(lambda node, part: node.get(part, {}), path, config)
        if name not in heads:
            raise ValueError(
                f'{key}=None takes away a head that the config does not have; it has '
                f'{sorted(heads)}.'
            )
    config.merge_from_dict(dict(options))


def merge_args(config: Config, args: argparse.Namespace) -> Config:
    """Writes the flags that only ``tools/train.py`` has into a config after `place_run`.

    Trainings of mmpretrain that validate get a ``SameClassesHook``.

    Args:
        config: Changed in place.
        args: ``resume``, ``amp``, ``auto_scale_lr``, ``trust_checkpoint``.

    Raises:
        ValueError: The config does not have what a flag needs.
        FileNotFoundError: The checkpoint to resume from does not exist.
        RuntimeError: There are checkpoints to resume from, and none can be read.
    """
    in_config = bool(config.get('resume') and not config.get('load_from'))
    if args.resume == 'auto' or (in_config and not args.resume):
        folders = checkpoint_folders(config)
        newest = newest_checkpoint(*folders, trusted=args.trust_checkpoint)
        config.resume = newest is not None
        if newest is None:
            print_log(f'{folders[-1]} holds no checkpoint to resume from: training starts anew.')
        else:
            config.load_from = str(newest)
    elif args.resume:
        if not is_remote(args.resume) and not Path(args.resume).is_file():
            raise FileNotFoundError(
                f"There is no checkpoint '{args.resume}' to resume from; --resume alone takes the "
                f'newest one in {config.work_dir}.'
            )
        config.resume, config.load_from = True, args.resume

    if config.get('default_scope') == 'mmpretrain' and config.get('val_dataloader'):
        config.custom_hooks = [*(config.get('custom_hooks') or []), dict(type='SameClassesHook')]
    if args.amp:
        _use_bfloat16(config)
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr needs the batch size that the learning rate was set for, and the '
                'config has none: add auto_scale_lr=dict(base_batch_size=...).'
            )
        config.auto_scale_lr.enable = True
    return config


def place_run(config: Config, args: argparse.Namespace) -> None:
    """Writes the flags that training and testing share, and defaults of the data loaders.

    Also registers the reader of checkpoints.

    Args:
        config: Changed in place.
        args: ``config``, ``work_dir``, ``launcher``, ``trust_checkpoint``.
    """
    config.launcher = args.launcher
    if args.work_dir:
        config.work_dir = args.work_dir
    config.setdefault('work_dir', str(Path('work_dirs', Path(args.config).stem)))
    register_reader(trusted=args.trust_checkpoint, own=checkpoint_folders(config))
    _fill_dataloaders(config)


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
        RuntimeError: There are more processes than GPUs, or a launcher other than torchrun
            without a GPU.
    """
    if config.launcher == 'none':
        return
    if get_device() != 'cpu':
        rank, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
        if config.launcher == 'pytorch' and rank >= gpus > 0:
            raise RuntimeError(
                f'Process {rank} of this machine finds {gpus} GPU(s): start at most {gpus} '
                'process(es) here (GPUS of tools/dist_train.sh), or show more of them '
                '(CUDA_VISIBLE_DEVICES).'
            )
        return
    if config.launcher != 'pytorch':
        raise RuntimeError(
            f"The launcher '{config.launcher}' needs a GPU and torch sees none here; on the CPU "
            'use tools/dist_train.sh.'
        )
    dist_cfg = config.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict())
    dist_cfg.backend = 'gloo'
    wrapper = config.setdefault('model_wrapper_cfg', ConfigDict())
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault('find_unused_parameters', config.get('find_unused_parameters', False))
    wrapper.device_ids = None
    config.sync_bn = None
    _unsync_batch_norm(config.model)
    timeout = datetime.timedelta(seconds=dist_cfg.get('timeout', 1800))
    torch.distributed.init_process_group('gloo', timeout=timeout)


def build_runner(config: Config) -> Runner:
    """The runner of a config: MMEngine's, or the one of its ``runner_type``."""
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)


@contextmanager
def end_in_one_sentence(tool: str, config: str) -> Iterator[None]:
    """Ends the process with the sentence of an error that the user can cure; others pass.

    Args:
        tool: Its path, for the start of the sentence.
        config: File that it runs.
    """
    # Here, because the engine's hooks export, and exporting needs load_config.
    from hgkd_mm.engine import (
        IncompleteCheckpointError,
        NonFiniteError,
        OtherClassesError,
        PretrainedWeightsError,
    )

    try:
        yield
    except (
        CheckpointError,
        IncompleteCheckpointError,
        MissingOpsError,
        NonFiniteError,
        OtherClassesError,
        PretrainedWeightsError,
    ) as error:
        sys.exit(f'{tool}: {error}')
    except FileNotFoundError as error:
        sys.exit(f'{tool}: {error}; python tools/doctor.py {config} lists what it needs.')


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


def _use_bfloat16(config: Config) -> None:
    wrapper = config.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'BF16OptimWrapper'):
        raise ValueError(
            f"--amp replaces optim_wrapper.type='OptimWrapper', and this config has '{kind}': "
            'set the precision there instead.'
        )
    wrapper.type = 'BF16OptimWrapper'
    for only_amp in ('loss_scale', 'dtype'):
        wrapper.pop(only_amp, None)


def _fill_dataloaders(config: Config) -> None:
    for name in DATALOADERS:
        loader = config.get(name)
        if loader is None:
            continue
        loader.setdefault('pin_memory', get_device() == 'cuda')
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
        # mmpretrain's preprocessors read a list as several views of one image, and MMEngine's
        # default collation gives a list
        if config.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))


def _unsync_batch_norm(node: Any) -> None:
    if isinstance(node, dict):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        for child in node.values():
            _unsync_batch_norm(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            _unsync_batch_norm(child)


def scaled_iterations(config: Config, factor: float) -> dict[str, int | list[int]]:
    """Overrides, by dotted key, that multiply what a training counts in iterations.

    These are its length, the intervals of validation and checkpoints, and schedules that are not
    by epoch. MMEngine's ``IterBasedTrainLoop`` counts forward passes, whether or not the
    optimizer steps after each. A training that counts epochs needs no overrides.
    """
    loop = config.get('train_cfg') or {}
    if 'max_iters' not in loop:
        return {}
    found = {f'train_cfg.{key}': loop.get(key) for key in ('max_iters', 'val_interval')}
    schedules = config.get('param_scheduler') or []
    listed = isinstance(schedules, (list, tuple))
    for index, schedule in enumerate(schedules if listed else [schedules]):
        if not schedule.get('by_epoch', True):
            start = f'param_scheduler.{index}' if listed else 'param_scheduler'
            found |= {f'{start}.{key}': schedule.get(key) for key in _COUNTED}
    checkpoint = (config.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        found['default_hooks.checkpoint.interval'] = checkpoint.get('interval')
    scaled = {key: _times(value, factor) for key, value in found.items() if value is not None}
    return {key: value for key, value in scaled.items() if value != found[key]}


def _times(value: int | list[int], factor: float) -> int | list[int]:
    if isinstance(value, (list, tuple)):
        return [_times(item, factor) for item in value]
    # -1 stands for never
    return max(1, round(value * factor)) if value > 0 else value
