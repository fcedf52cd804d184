"""The folder of a run: its lock, the checkpoint that a run goes on from, and its scalars."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from numpy.typing import NDArray

from hgkd_mm.weights.reading import CheckpointError, UntrustedCheckpointError, read_file

from .files import is_remote

# The folder whose lock the process that started this one holds for it.
_PASSED_ON = 'HGKD_HELD_WORK_DIR'


class BusyError(RuntimeError):
    """Another process uses the folder."""


@contextmanager
def held(folder: Path) -> Iterator[TextIO | None]:
    """Locks a folder, which need not exist, for this process while the block runs.

    The system drops the lock with the process. A process that was started with `passed_on` has
    the lock already. Yields the lock, a file beside the folder; None where none can be had.

    Raises:
        BusyError: Another process holds the folder.
    """
    folder = folder.resolve()
    lock = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f'.{folder.name}.lock').open('a+')
        if os.environ.get(_PASSED_ON) != str(folder):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except BlockingIOError as error:
        lock.seek(0)
        raise BusyError(
            f'{folder} is in use by another run (process {lock.read() or "unknown"}): wait for it '
            'to end, or give this one another --work-dir.'
        ) from error
    except OSError as error:
        print_log(f'{folder} cannot be held against other runs: {error}', level=logging.WARNING)
    try:
        yield lock
    finally:
        if lock is not None:
            lock.close()


def passed_on(folder: Path) -> dict[str, str]:
    """Environment of a process that inherits the lock of a folder from this one."""
    return {_PASSED_ON: str(folder.resolve())}


def checkpoint_folders(config: Config) -> list[Path]:
    """The work dir of a run, and its folder in the ``out_dir`` of CheckpointHook if one is set."""
    folders = [Path(config.work_dir)]
    out_dir = config.get('default_hooks', {}).get('checkpoint', {}).get('out_dir')
    if out_dir and not is_remote(str(out_dir)):
        folders.append(Path(out_dir, folders[0].name))
    return folders


def newest_checkpoint(*folders: Path, trusted: bool = False) -> Path | None:
    """The readable training checkpoint of the most iterations in these folders, None without any.

    A folder that ``last_checkpoint`` names is ignored: the run may have been moved or copied.
    Each damaged file is named in a warning. ``trusted`` allows files to run pickled code.

    Raises:
        UntrustedCheckpointError: The newest one contains code and is not trusted.
        CheckpointError: There are some, and none can be read.
    """
    readable, damaged = [], []
    for paths in _candidates(folders):
        for path in paths:
            try:
                content = read_file(path, key='--resume', trusted=trusted)
                readable.append((int(content['meta']['iter']), path))
                break
            except UntrustedCheckpointError:
                raise
            except (CheckpointError, IndexError, KeyError, TypeError, ValueError) as error:
                reason = error if isinstance(error, CheckpointError) else 'it has no meta.iter'
                damaged.append(f'{path} ({reason})')
                print_log(f'{path} is not resumed from: {reason}', level=logging.WARNING)
    if damaged and not readable:
        raise CheckpointError(
            f'--resume finds no checkpoint that can be read: {"; ".join(damaged)}. Name one with '
            '--resume FILE, or move these away to start anew.'
        )
    return max(readable)[1] if readable else None


def _candidates(folders: tuple[Path, ...]) -> list[list[Path]]:
    """Checkpoints counted in epochs and those counted in iterations, each from the last one on."""
    numbered: dict[str, list[tuple[int, Path]]] = {'epoch': [], 'iter': []}
    for path in (path for folder in folders for path in folder.glob('*.pth')):
        if name := re.fullmatch(r'(epoch|iter)_(\d+)\.pth', path.name):
            numbered[name[1]].append((int(name[2]), path))
    if any(numbered.values()):
        return [[path for _, path in sorted(found, reverse=True)] for found in numbered.values()]
    # Of another name (filename_tmpl): only MMEngine's note tells it from an export.
    notes = [folder / 'last_checkpoint' for folder in folders]
    noted = [n.with_name(Path(n.read_text().strip()).name) for n in notes if n.is_file()]
    return [[path for path in noted if path.is_file()]]


class Curve(NamedTuple):
    """One scalar over training."""

    steps: NDArray[np.int64]  # (T,) iterations, increasing
    values: NDArray[np.float64]  # (T,)


def read_scalars(work_dir: Path) -> dict[str, Curve]:
    """The curves that MMEngine's ``LocalVisBackend`` wrote: ``loss``, ``lr``, ``knn/top1``, ...

    If a resumed run repeats a step, its value counts.
    """
    series: dict[str, dict[int, float]] = defaultdict(dict)
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for record in _records(file):
            step = record.pop('step', None)
            for name, value in record.items():
                if step is not None and isinstance(value, int | float):
                    series[name][step] = value
    return {
        name: Curve(*(np.array(part) for part in zip(*sorted(points.items()), strict=True)))
        for name, points in series.items()
    }


def _records(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # a run that was killed leaves half a line; what comes before it is good
