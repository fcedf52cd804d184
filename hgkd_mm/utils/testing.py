"""From a config, a checkpoint and command-line flags to a config that the Runner can test."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .files import is_remote
from .launch import place_run

# What draws predictions in each package.
_PICTURES = {
    'mmpretrain': dict(type='VisualizationHook', enable=True),
    'mmdet': dict(type='DetVisualizationHook', draw=True),
    'mmseg': dict(type='SegVisualizationHook', draw=True),
}
_DUMPS = {'mmpretrain': 'DumpResults', 'mmdet': 'DumpDetResults'}


def merge_test_args(config: Config, args: argparse.Namespace) -> Config:
    """Writes the flags of ``tools/test.py`` into the config.

    Args:
        config: What `hgkd_mm.utils.launch.load_config` gave; changed in place.
        args: ``config``, ``checkpoint``, ``work_dir``, ``show_dir``, ``out``, ``launcher``.

    Raises:
        ValueError: The config has nothing to test with, or does not have what a flag needs.
        FileNotFoundError: The checkpoint does not exist.
    """
    if config.get('test_dataloader') is None or config.get('test_evaluator') is None:
        raise ValueError(
            f'{args.config} has no test_dataloader and test_evaluator, as configs of pre-training '
            'have none: test with the config of a task (configs/cls, configs/det, configs/seg).'
        )
    if not is_remote(args.checkpoint) and not Path(args.checkpoint).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint '{args.checkpoint}' (looked for from {Path.cwd()})."
        )
    place_run(config, args)
    config.load_from, config.resume = args.checkpoint, False
    hooks = config.get('custom_hooks') or []
    if args.out or args.show_dir:
        hooks = [_averaged_only(hook) for hook in hooks]
    config.custom_hooks = [*hooks, dict(type='WholeCheckpointHook')]
    scope = config.get('default_scope', 'mmengine')
    if args.show_dir:
        _draw(config, scope, str(Path(args.show_dir).resolve()))
    if args.out:
        _keep(config, scope, args.out)
    return config


def _averaged_only(hook: dict) -> dict:
    # EMAHook would test a second time, with the raw weights, and what it predicts then overwrites
    # predictions and pictures: they would not be those of the accuracy that is printed.
    both = hook.get('evaluate_on_origin') and hook.get('evaluate_on_ema', True)
    return {**hook, 'evaluate_on_origin': False} if both else hook


def _draw(config: Config, scope: str, folder: str) -> None:
    if scope not in _PICTURES:
        raise ValueError(
            f'--show-dir knows the scopes {", ".join(_PICTURES)}, and the config has default_scope='
            f"'{scope}'."
        )
    hooks = config.setdefault('default_hooks', ConfigDict())
    hook = {'interval': 1, **(hooks.get('visualization') or {}), **_PICTURES[scope]}
    if scope == 'mmseg':
        # Its hook has no folder: the pictures go where the visualizer's backend stores.
        backends = [dict(type='LocalVisBackend')]
        config.visualizer = {**config.visualizer, 'save_dir': folder, 'vis_backends': backends}
    else:
        hook['out_dir' if scope == 'mmpretrain' else 'test_out_dir'] = folder
    hooks.visualization = hook


def _keep(config: Config, scope: str, out: str) -> None:
    evaluators = config.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    if scope == 'mmseg':
        # As png maps: pickled predictions would hold a score a class a pixel.
        evaluators = [{**evaluator, 'output_dir': out} for evaluator in evaluators]
    else:
        if not out.endswith(('.pkl', '.pickle')):
            raise ValueError(f"--out writes a pickle file, NAME.pkl, and got '{out}'.")
        evaluators.append(dict(type=_DUMPS.get(scope, 'DumpResults'), out_file_path=out))
    config.test_evaluator = evaluators
