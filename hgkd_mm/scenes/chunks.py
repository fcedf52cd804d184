"""Work that is done in chunks by several processes and goes on where it was interrupted."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from hgkd_mm.utils.files import write_whole

# Split, first picture, and the one after the last.
Chunk = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """Pictures of a folder that are written in chunks.

    A chunk counts as written once its records are: after an interruption only the chunks without
    records are written again, to the same bytes.

    Args:
        request: File that says what the finished folder holds.
        unfinished: Folder of that file and of the records until all is written.
        content: What is asked for.
        counts: Pictures of each split.
        size: Pictures of a chunk.
    """

    request: Path
    unfinished: Path
    content: dict
    counts: dict[str, int]
    size: int

    def conflict(self) -> tuple[Path, dict] | None:
        """What was asked for here, finished or not, if it is something else."""
        for path in (self.request, self.unfinished / self.request.name):
            if path.is_file() and (found := json.loads(path.read_text())) != self.content:
                return path, found
        return None

    def of_split(self, split: str) -> list[Chunk]:
        """The chunks of a split."""
        count = self.counts[split]
        starts = range(0, count, self.size)
        return [(split, start, min(start + self.size, count)) for start in starts]

    def records(self, chunk: Chunk) -> Path:
        """The file of a chunk's records."""
        return self.unfinished / f'{chunk[0]}-{chunk[1]:06d}.json'

    def write(self, work: Callable[[Chunk], int], workers: int) -> Iterator[int]:
        """Does the work on the chunks without records.

        Args:
            work: Writes a chunk's pictures and then its records; returns its number of pictures.
            workers: Processes; 1 stays in this one.

        Yields:
            Number of pictures done so far, after each chunk.
        """
        write_whole(
            self.unfinished / self.request.name, json.dumps(self.content, indent=2).encode()
        )
        chunks = [chunk for split in self.counts for chunk in self.of_split(split)]
        missing = [chunk for chunk in chunks if not self.records(chunk).is_file()]
        done = sum(self.counts.values()) - sum(stop - start for _, start, stop in missing)
        for count in _in_processes(work, missing, workers):
            done += count
            yield done

    def finish(self) -> None:
        """Says that all is written, and removes the records."""
        os.replace(self.unfinished / self.request.name, self.request)
        shutil.rmtree(self.unfinished)


def _in_processes(
    work: Callable[[Chunk], int], chunks: Sequence[Chunk], workers: int
) -> Iterator[int]:
    """Results of the work on each chunk, in order; 1 worker or chunk stays in this process."""
    if workers == 1 or len(chunks) < 2:
        yield from map(work, chunks)
        return
    # Not forked: the caller may hold threads (torch, OpenCV) whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        yield from pool.map(work, chunks)
