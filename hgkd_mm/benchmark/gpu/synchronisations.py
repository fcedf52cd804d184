"""Where the host waits for the device, by the line of code that makes it wait."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MESSAGE = 'called a synchronizing CUDA operation'
_TORCH = Path(torch.__file__).parent


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the waits of the block by their line; of CUDA devices alone.

    Yields:
        'path:line function' to the number of waits; the innermost line outside torch.
    """
    waits: Counter[str] = Counter()

    def note(message: Warning | str, *rest: object) -> None:
        if MESSAGE in str(message):
            waits[_cause()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode('default')


def _cause() -> str:
    """The innermost line that is neither torch's, nor Python's own, nor of this file."""
    own = {__file__, warnings.__file__}
    frames = traceback.extract_stack()
    for frame in reversed(frames):
        path = Path(frame.filename)
        if frame.filename not in own and _TORCH not in path.parents and path.is_file():
            return f'{_short(path)}:{frame.lineno} {frame.name}'
    # A thread of torch's that runs the backward pass of its own ops only.
    return f'{_short(Path(frames[0].filename))}:{frames[0].lineno} {frames[0].name}'


def _short(path: Path) -> str:
    """The path from the folder on that it was imported from."""
    for folder in sorted(map(Path, filter(None, sys.path)), key=lambda p: -len(p.parts)):
        if folder in path.parents:
            return str(path.relative_to(folder))
    return str(path)
