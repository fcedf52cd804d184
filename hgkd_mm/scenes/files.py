"""Pictures that are either whole or not there, and work on chunks of them in processes."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from hgkd_mm.utils.files import write_whole

JPEG_QUALITY = 92

Chunk = TypeVar('Chunk')


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes a (H, W, 3) uint8 RGB picture as JPEG."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_whole(path, jpeg.tobytes(), synced=False)


def write_map(path: Path, values: np.ndarray) -> None:
    """Writes a (H, W) uint8 map as png."""
    write_whole(path, cv2.imencode('.png', values)[1].tobytes(), synced=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file at a second place: a hard link, or a copy where the disk has no such links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        partial = target.with_name(target.name + '.part')
        shutil.copyfile(source, partial)
        os.replace(partial, target)


def in_processes(
    work: Callable[[Chunk], int], chunks: Sequence[Chunk], workers: int
) -> Iterator[int]:
    """Results of the work on each chunk, in order; 1 worker or chunk stays in this process."""
    if workers == 1 or len(chunks) < 2:
        yield from map(work, chunks)
        return
    # Not forked: the caller may hold threads (torch, OpenCV) whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        yield from pool.map(work, chunks)
