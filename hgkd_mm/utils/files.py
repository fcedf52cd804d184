"""Atomic writes, hashes, and addresses told from paths."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def is_remote(path: str) -> bool:
    """Whether a path names something that is not on this machine's disks."""
    return '://' in path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Writes or replaces a file in one step, and makes its folder; processes may do so at once.

    After an error the old file is untouched. ``synced`` waits until the disk has the file, so that
    it is whole after a crash of the machine too: milliseconds, long for thousands of small files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files that nobody else can read
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
