#!/usr/bin/env bash
# Guess: when a DataLoader is no longer used, its workers end at once, however Python frees it.
# Behaviour: with persistent_workers=True the loader keeps its iterator. Where the loader is part of
#   a reference cycle (in MMEngine that of the Runner and its loops), only the garbage collector
#   frees it. The workers' queues are then dead before the iterator's finalizer has sent the word to
#   end, and it waits its full five seconds for each worker, one after the other: a minute for 12,
#   in the middle of whatever the program does next. Without persistent workers the iterator is
#   freed when the loop over it ends, and its workers are gone in a moment.
# Versions: torch 2.11.0 on Linux, Python 3.11, seen on 2026-11-27.
# Here: tools/gpu_check.py ends a training early and trains without persistent workers.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'echo "NOT TRIED: a step before the question failed."; exit 2' ERR
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON' || exit 1
import gc
import sys
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

WORKERS = 2


class Owner:
    """Holds a loader and, in a cycle, itself."""

    def __init__(self, persistent: bool, cycle: bool) -> None:
        data = TensorDataset(torch.arange(64))
        self.loader = DataLoader(data, num_workers=WORKERS, persistent_workers=persistent)
        if cycle:
            self.me = self


def seconds_to_free(persistent: bool, cycle: bool) -> float:
    """From the first batch until the workers are gone."""
    owner = Owner(persistent, cycle)
    batches = iter(owner.loader)
    next(batches)
    started = time.monotonic()
    del batches, owner
    gc.collect()
    return time.monotonic() - started


plain, counted, collected = (
    seconds_to_free(*case) for case in ((False, True), (True, False), (True, True))
)
print(f'torch {torch.__version__}, Python {sys.version.split()[0]}, {WORKERS} workers')
print(f'not persistent, in a cycle: {plain:.1f} s')
print(f'persistent, in no cycle:    {counted:.1f} s')
print(f'persistent, in a cycle:     {collected:.1f} s')
if max(plain, counted) > 4 or collected < 5 * WORKERS - 1:
    sys.exit('CHANGED: expected two moments, and five seconds for each worker.')
print('As described: five seconds for each persistent worker.')
PYTHON
