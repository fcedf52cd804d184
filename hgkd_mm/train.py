"""Trains a model from a config, on one device or under a launcher.

    python -m hgkd_mm.train configs/pretrain/hgkd_r50_mae.py --amp --work-dir work_dirs/r50

In a checkout tools/train.py is the same, and tools/dist_train.sh and tools/slurm_train.sh start
several processes.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from mmengine.registry import RUNNERS

import hgkd_mm.engine  # noqa: F401  registers what --amp names
import hgkd_mm.export  # noqa: F401  registers ExportBackboneHook
from hgkd_mm.utils.distributed import is_first_process, leave_distributed, start_distributed
from hgkd_mm.utils.launch import (
    end_in_one_sentence,
    load_config,
    merge_args,
    parse_run_args,
    place_run,
)
from hgkd_mm.utils.work_dir import held


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; the flags are those of the OpenMMLab tools."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the newest one in the work dir if none is named',
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by actual batch size / auto_scale_lr.base_batch_size',
    )
    example = 'model.neck.out_stride=8 optim_wrapper.optimizer.lr=1e-3'
    return parse_run_args(parser, arguments, example=example)


def main() -> None:
    """Builds the runner and trains, in a folder that no other run uses."""
    args = parse_args()
    with ExitStack() as stack:
        try:
            config = load_config(args.config, args.cfg_options)
            place_run(config, args)
            # One process holds the folder for all, before anything in it is looked at.
            if is_first_process(args.launcher):
                stack.enter_context(held(Path(config.work_dir)))
            merge_args(config, args)
            start_distributed(config)
        except (OSError, ValueError, RuntimeError) as error:
            sys.exit(f'tools/train.py: {error}')
        with end_in_one_sentence('tools/train.py', args.config):
            RUNNERS.build(config).train()
    leave_distributed(config)


if __name__ == '__main__':
    main()
