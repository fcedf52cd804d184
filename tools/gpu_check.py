"""Measures on a GPU what no CPU can tell: numbers, speed, memory, waits, and real training.

    python tools/gpu_check.py --wheels gpu_wheels          # all stages, within five minutes
    python tools/gpu_check.py --stages parity encoder      # these; torch and timm are enough
    python tools/gpu_check.py --device cpu --small         # does it run at all

Writes gpu_check.json and gpu_check.md after every stage. Exits with status 1 if a stage failed,
with 3 if the time was over before the last one. docs/gpu.md tells what each stage says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STAGE_NAMES = ('parity', 'encoder', 'methods', 'profile', 'step', 'training')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--minutes', type=float, default=5.0, help='the command ends itself within (5)')
    add('--stages', nargs='+', choices=STAGE_NAMES, default=STAGE_NAMES, help='which (all)')
    add('--device', default='cuda', help='cuda, cuda:1, ... or cpu')
    add('--small', action='store_true', help='tiny networks and images, for a test on a CPU')
    add('--wheels', type=Path, help='folder of the OpenMMLab wheels (tools/gpu_wheels.sh)')
    add('--out', type=Path, default=Path('work_dirs/gpu_check'), help='folder of the results')
    args = parser.parse_args()
    if not args.minutes > 0:
        parser.error(f'--minutes takes a number above 0, not {args.minutes:g}.')
    if args.wheels and not list(args.wheels.glob('*.whl')):
        parser.error(f'--wheels {args.wheels} holds no wheel: bash tools/gpu_wheels.sh DIR')
    return args


def main() -> int:
    """Runs the stages; returns the exit status."""
    started = time.monotonic()
    args = parse_args()
    # Imported here: the processes that draw Scenes import this file, and need no torch.
    import torch

    from hgkd_mm.benchmark import gpu
    from hgkd_mm.utils.launch import check_device

    try:
        check_device(args.device)
    except RuntimeError as error:
        sys.exit(f'gpu_check: {error}')
    device = torch.device(args.device)
    if device.index is not None:  # 'cuda' alone is the current one
        torch.cuda.set_device(device)
    end = started + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix='gpu_check-') as folder:
        scratch = Path(folder)
        if args.wheels:
            gpu.unpack(args.wheels, scratch / 'site')
        recorder = gpu.Recorder(args.out, gpu.describe(args.device))
        watchdog = gpu.end_at(end, args.minutes, recorder, scratch)
        gpu.run_stages(
            args.stages,
            recorder,
            device=args.device,
            sizes=gpu.SMALL if args.small else gpu.Sizes(),
            scratch=scratch,
            end=end,
        )
        watchdog.cancel()
    return int(recorder.failed)


if __name__ == '__main__':
    sys.exit(main())
