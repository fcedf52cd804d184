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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(stages: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--minutes', type=float, default=5.0, help='the command ends itself within (5)')
    add('--stages', nargs='+', choices=stages, default=stages, help='which (all)')
    add('--device', default='cuda', help='cuda, cuda:1, ... or cpu')
    add('--small', action='store_true', help='tiny networks and images, for a test on a CPU')
    add('--wheels', type=Path, help='folder of the OpenMMLab wheels (tools/gpu_wheels.sh)')
    add('--out', type=Path, default=Path('work_dirs/gpu_check'), help='folder of the results')
    args = parser.parse_args()
    if args.wheels and not list(args.wheels.glob('*.whl')):
        parser.error(f'--wheels {args.wheels} holds no wheel: bash tools/gpu_wheels.sh DIR')
    return args


def main() -> int:
    """Runs the stages; returns the exit status."""
    started = time.monotonic()
    # Imported here: the processes that draw Scenes import this file, and need no torch.
    import torch

    from hgkd_mm.benchmark import check
    from hgkd_mm.benchmark.report import Recorder
    from hgkd_mm.benchmark.timing import describe

    args = parse_args(tuple(check.STAGES))
    if torch.device(args.device).index is not None:  # 'cuda' alone is the current one
        torch.cuda.set_device(args.device)
    end = started + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix='gpu_check-') as folder:
        scratch = Path(folder)
        if args.wheels:
            check.unpack(args.wheels, scratch / 'site')
        recorder = Recorder(args.out, describe(args.device))
        watchdog = check.end_at(end, args.minutes, recorder, scratch)
        run = check.Check.small(scratch) if args.small else check.Check(scratch=scratch)
        run = replace(run, settings=replace(run.settings, device=args.device))
        check.run_stages(args.stages, recorder, run, end)
        watchdog.cancel()
    return int(recorder.failed)


if __name__ == '__main__':
    sys.exit(main())
