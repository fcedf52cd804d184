"""Runs a worker script as two processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_two_ranks(worker: Path, *arguments: object) -> None:
    """``worker RANK arguments...`` for rank 0 and 1; fails with the output of one that fails."""
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), *map(str, arguments)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
