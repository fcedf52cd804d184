"""Tests a checkpoint with a config: classification, detection or segmentation.

    python tools/test.py configs/det/mask-rcnn_r50_fpn_1x_coco.py work_dirs/.../iter_90000.pth

For several processes use tools/dist_test.sh or tools/slurm_test.sh.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS

import hgkd_mm.export  # noqa: F401  registers ExportBackboneHook
from hgkd_mm.utils.distributed import leave_distributed, start_distributed
from hgkd_mm.utils.launch import (
    end_in_one_sentence,
    load_config,
    parse_run_args,
    place_run,
)


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
    return parse_run_args(parser, arguments, example='test_dataloader.batch_size=4')


def merge_test_args(config: Config, args: argparse.Namespace) -> Config:
    """Writes the flags into the config, in place."""
    place_run(config, args)
    config.load_from, config.resume = args.checkpoint, False
    hooks = config.get('custom_hooks') or []
    if args.out or args.show_dir:
        hooks = [_averaged_only(hook) for hook in hooks]
    if args.out:
        _keep(config, args.out)
    if args.show_dir:
        _draw(config, str(Path(args.show_dir).resolve()))
    config.custom_hooks = [*hooks, dict(type='WholeCheckpointHook')]
    return config


def _averaged_only(hook: dict) -> dict:
    # EMAHook would test a second time, with the raw weights, and overwrite the predictions and
    # pictures of the accuracy that is printed.
    both = hook.get('evaluate_on_origin') and hook.get('evaluate_on_ema', True)
    return {**hook, 'evaluate_on_origin': False} if both else hook


def _draw(config: Config, folder: str) -> None:
    scope = config.get('default_scope')
    if scope == 'mmpretrain':
        drawn = dict(type='VisualizationHook', enable=True, out_dir=folder)
    elif scope == 'mmdet':
        drawn = dict(type='DetVisualizationHook', draw=True, test_out_dir=folder)
    else:
        drawn = dict(type='SegVisualizationHook', draw=True)
        # mmseg's hook has no folder: the pictures go where the visualizer's backend stores.
        backends = [dict(type='LocalVisBackend')]
        config.visualizer = {**config.visualizer, 'save_dir': folder, 'vis_backends': backends}
    hooks = config.setdefault('default_hooks', ConfigDict())
    hooks.visualization = {'interval': 1, **(hooks.get('visualization') or {}), **drawn}


def _keep(config: Config, out: str) -> None:
    scope, evaluators = config.get('default_scope'), config.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    if scope == 'mmseg':
        # As png maps: pickled predictions would hold the scores of all classes for each pixel.
        evaluators = [{**evaluator, 'output_dir': out} for evaluator in evaluators]
    else:
        kind = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        evaluators.append(dict(type=kind, out_file_path=out))
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
        RUNNERS.build(config).test()
    leave_distributed(config)


if __name__ == '__main__':
    main()
