"""Tests a checkpoint with the config of its task: classification, detection or segmentation.

    python tools/test.py configs/det/mask-rcnn_r50_fpn_1x_coco.py work_dirs/.../iter_90000.pth

For several processes use tools/dist_test.sh or tools/slurm_test.sh.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, ConfigDict

from hgkd_mm.utils.files import is_remote
from hgkd_mm.utils.launch import (
    add_common_flags,
    build_runner,
    end_in_one_sentence,
    leave_distributed,
    load_config,
    place_run,
    start_distributed,
)

# What draws predictions in each package.
_PICTURES = {
    'mmpretrain': dict(type='VisualizationHook', enable=True),
    'mmdet': dict(type='DetVisualizationHook', draw=True),
    'mmseg': dict(type='SegVisualizationHook', draw=True),
}
_DUMPS = {'mmpretrain': 'DumpResults', 'mmdet': 'DumpDetResults'}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; the flags are those of the OpenMMLab tools."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='logs and results; default work_dirs/<config name>')
    parser.add_argument('--show-dir', metavar='DIR', help='draw predictions of every image there')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='keep predictions: a .pkl file (classification, detection), a folder (segmentation)',
    )
    add_common_flags(parser, example='test_dataloader.batch_size=4')
    args = parser.parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def merge_test_args(config: Config, args: argparse.Namespace) -> Config:
    """Writes the flags into the config, in place.

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
    # EMAHook would test a second time, with the raw weights, and overwrite the predictions and
    # pictures of the accuracy that is printed.
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
        # As png maps: pickled predictions would hold the scores of all classes for each pixel.
        evaluators = [{**evaluator, 'output_dir': out} for evaluator in evaluators]
    else:
        if not out.endswith(('.pkl', '.pickle')):
            raise ValueError(f"--out writes a pickle file, NAME.pkl, and got '{out}'.")
        evaluators.append(dict(type=_DUMPS.get(scope, 'DumpResults'), out_file_path=out))
    config.test_evaluator = evaluators


def main() -> None:
    """Builds the runner and tests."""
    args = parse_args()
    try:
        config = merge_test_args(load_config(args.config, args.cfg_options), args)
        start_distributed(config)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f'tools/test.py: {error}')
    with end_in_one_sentence('tools/test.py', args.config):
        build_runner(config).test()
    leave_distributed(config)


if __name__ == '__main__':
    main()
