"""From a config and command-line flags to a Runner."""

from __future__ import annotations

import argparse
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

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import Runner

from hgkd_mm.weights.reading import CheckpointError, register_reader

from .environment import MissingOpsError, has_ops, need_ops, uses_ops
from .work_dir import checkpoint_folders, newest_checkpoint

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


def parse_run_args(
    parser: argparse.ArgumentParser, arguments: list[str] | None, *, example: str
) -> argparse.Namespace:
    """Adds the flags that training and testing share, and reads the command line."""
    add_config_flag(parser, example=example)
    add_trust_flag(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    parser.add_argument('--launcher', choices=launchers, default='none', help='job launcher')
    # older launchers give it as a flag
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


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
    """Adds the flags of the tools that show what trained weights make of ``num`` images."""
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


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file, and overrides values by dotted key (``--cfg-options``).

    Raises:
        FileNotFoundError: There is no such file.
        MissingOpsError: It is of a package that needs mmcv's ops, and mmcv has none.
        ValueError: See `override`.
    """
    # Before its custom_imports: the package, which they import, would stop with an error that does
    # not name the ops.
    if not has_ops():
        scope = Config.fromfile(path, import_custom_modules=False).get('default_scope')
        if uses_ops(scope):
            need_ops(f'{scope}, the default_scope of {path},')
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
        first = key.partition('.')[0]
        if first not in known:
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
        *path, name = key.split('.')
        if value is None and path[-1:] == ['heads']:
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

    Raises:
        ValueError: The config does not have what a flag needs.
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
        config.resume, config.load_from = True, args.resume

    if config.get('default_scope') == 'mmpretrain' and config.get('val_dataloader'):
        config.custom_hooks = [*(config.get('custom_hooks') or []), dict(type='SameClassesHook')]
    if args.amp:
        _use_bfloat16(config)
    if args.auto_scale_lr:
        config.merge_from_dict({'auto_scale_lr.enable': True})
    return config


def place_run(config: Config, args: argparse.Namespace) -> None:
    """Writes the flags that training and testing share, and defaults of the data loaders.

    Also registers the reader of checkpoints.
    """
    config.launcher = args.launcher
    if args.work_dir:
        config.work_dir = args.work_dir
    config.setdefault('work_dir', str(Path('work_dirs', Path(args.config).stem)))
    register_reader(trusted=args.trust_checkpoint, own=checkpoint_folders(config))
    loaders = (config.get(f'{split}_dataloader') for split in ('train', 'val', 'test'))
    for loader in filter(None, loaders):
        loader.setdefault('pin_memory', get_device() == 'cuda')
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
        # mmpretrain's preprocessors read a list as several views of one image, and MMEngine's
        # default collation gives a list
        if config.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))


@contextmanager
def end_in_one_sentence(tool: str, config: str) -> Iterator[None]:
    """Ends the process with the sentence of an error that the user can cure; others pass."""
    # Here, because the engine's hooks export, and exporting needs load_config.
    from hgkd_mm.engine import NonFiniteError, OtherClassesError

    try:
        yield
    except (CheckpointError, MissingOpsError, NonFiniteError, OtherClassesError) as error:
        sys.exit(f'{tool}: {error}')
    except FileNotFoundError as error:
        sys.exit(f'{tool}: {error}; python tools/doctor.py {config} lists what it needs.')


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


def scaled_iterations(config: Config, factor: float) -> dict[str, int | list[int]]:
    """Overrides, by dotted key, that multiply what a training counts in iterations.

    MMEngine's ``IterBasedTrainLoop`` counts forward passes, whether or not the optimizer steps
    after each. A training that counts epochs needs no overrides.
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
