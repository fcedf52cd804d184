"""Tests a checkpoint with the config of its task: classification, detection or segmentation.

    python tools/test.py configs/det/mask-rcnn_r50_fpn_1x_coco.py work_dirs/.../iter_90000.pth

For several processes use tools/dist_test.sh or tools/slurm_test.sh.
"""

from __future__ import annotations

import argparse
import os
import sys

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from hgkd_mm.engine import IncompleteCheckpointError
from hgkd_mm.utils.launch import (
    add_common_flags,
    leave_distributed,
    load_config,
    start_distributed,
)
from hgkd_mm.utils.testing import merge_test_args
from hgkd_mm.weights.reading import CheckpointError


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


def main() -> None:
    """Builds the runner and tests."""
    args = parse_args()
    try:
        config = merge_test_args(load_config(args.config, args.cfg_options), args)
        start_distributed(config)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        sys.exit(f'tools/test.py: {error}')
    try:
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        runner.test()
    except (CheckpointError, IncompleteCheckpointError) as error:
        sys.exit(f'tools/test.py: {error}')
    except FileNotFoundError as error:
        sys.exit(
            f'tools/test.py: {error}; python tools/doctor.py {args.config} lists what it needs.'
        )
    leave_distributed(config)


if __name__ == '__main__':
    main()
