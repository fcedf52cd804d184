"""Trains a model from a config, on one device or under a launcher.

    python tools/train.py configs/pretrain/hgkd_r50_mae.py --amp --work-dir work_dirs/r50

For several processes use tools/dist_train.sh or tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

# The package also registers what --amp names.
from hgkd_mm.engine import NonFiniteError, OtherClassesError
from hgkd_mm.utils.launch import (
    add_common_flags,
    is_first_process,
    leave_distributed,
    load_config,
    merge_args,
    place_run,
    start_distributed,
)
from hgkd_mm.utils.mmcv_ops import MissingOpsError
from hgkd_mm.utils.work_dir import held
from hgkd_mm.weights.reading import CheckpointError


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
    add_common_flags(parser, example='model.neck.out_stride=8 optim_wrapper.optimizer.lr=1e-3')
    args = parser.parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


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
        try:
            runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
            runner.train()
        except (CheckpointError, MissingOpsError, NonFiniteError, OtherClassesError) as error:
            sys.exit(f'tools/train.py: {error}')
        except FileNotFoundError as error:
            sys.exit(
                f'tools/train.py: {error}; python tools/doctor.py {args.config} lists what it '
                'needs.'
            )
    leave_distributed(config)


if __name__ == '__main__':
    main()
