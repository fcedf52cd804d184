"""A run's folder: who uses it, and the checkpoint that it goes on from."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from .checkpoint_file import CHECKPOINT, CheckpointError, read_file


class BusyError(RuntimeError):
    """Another process uses the folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a folder, made if need be, for this process while the block runs.

    The system lets go of it when the process ends in whatever way. On a network disk that knows
    no locks nothing is held.

    Raises:
        BusyError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a+') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise BusyError(
                f'{folder} is in use by another run (process {lock.read() or "unknown"}): wait '
                'for it to end, or give this one another --work-dir.'
            ) from error
        except OSError:
            pass
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def newest_checkpoint(*folders: Path) -> Path | None:
    """The training checkpoint of these folders that is furthest on and can be read.

    What ``last_checkpoint`` says of other folders does not count, because a folder may have been
    moved or copied. Files that cannot be read are named in a warning each.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        CheckpointError: there are some, and none can be read.
    """
    by_kind: dict[str, list[tuple[int, Path]]] = {}
    for path in (path for folder in folders for path in folder.glob('*.pth')):
        if name := re.fullmatch(r'(epoch|iter)_(\d+)\.pth', path.name):
            by_kind.setdefault(name[1], []).append((int(name[2]), path))
    if not by_kind:
        # of another name (filename_tmpl), which only MMEngine's note tells from exports
        notes = [folder / 'last_checkpoint' for folder in folders]
        noted = [n.with_name(Path(n.read_text().strip()).name) for n in notes if n.is_file()]
        by_kind['noted'] = [(0, path) for path in noted if path.is_file()]
    readable, damaged = [], []
    for paths in by_kind.values():
        for _, path in sorted(paths, reverse=True):
            try:
                readable.append((read_file(path, str(path), CHECKPOINT)['meta']['iter'], path))
                break
            except (CheckpointError, KeyError, TypeError) as error:
                damaged.append(f'{path} ({error})')
                print_log(f'{path} is no checkpoint to resume from: {error}', level=logging.WARNING)
    if damaged and not readable:
        raise CheckpointError(
            f'--resume finds no checkpoint that can be read: {"; ".join(damaged)}. Name one with '
            '--resume FILE, or move these away to start anew.'
        )
    return max(readable)[1] if readable else None
