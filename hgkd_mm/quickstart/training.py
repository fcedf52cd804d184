"""Runs jobs side by side and shows how far they are."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hgkd_mm.inspect import read_scalars
from hgkd_mm.utils.processor import usable_cores

from .job import Job

SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen
    bar: TaskID
    started: float


def train(*jobs: Job, side_by_side: int = SIDE_BY_SIDE) -> list[Path]:
    """Trains the jobs, some side by side, sharing the cores; finished ones are not repeated.

    Small networks on small images leave the second core nearly idle, so two trainings at once
    take little longer than one.

    Args:
        jobs: what to train, in this order.
        side_by_side: processes at once.

    Returns:
        The last checkpoint of each.

    Raises:
        RuntimeError: one of them stopped; the others are stopped as well.
    """
    todo = []
    for job in jobs:
        if job.done:
            print(f'{job.title}: done before, {job.checkpoint}')
        else:
            # Both look at the data, so that what is wrong with it is told before any work.
            _ = job.iterations, job.wanted
            todo.append(job)
    threads = max(1, usable_cores() // max(1, min(side_by_side, len(todo))))
    with _progress() as progress, _all_stopped() as running:
        while todo or running:
            while todo and len(running) < side_by_side:
                job = todo.pop(0)
                process = job.start(threads)
                bar = progress.add_task(job.title, total=job.iterations, loss='-')
                running.append(_Running(job, process, bar, time.perf_counter()))
            time.sleep(1)
            for one in list(running):
                ended = one.process.poll() is not None
                _show(one, progress)
                if ended:
                    one.job.finish(one.process, time.perf_counter() - one.started)
                    progress.update(one.bar, completed=one.job.iterations)
                    running.remove(one)
    return [job.checkpoint for job in jobs]


@contextmanager
def _all_stopped() -> Iterator[list[_Running]]:
    """A list of processes, none of which outlives the block, be it left by SIGTERM."""
    running: list[_Running] = []
    # Python runs handlers in the main thread alone, and lets no other set them.
    catches = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _leave) if catches else None
    try:
        yield running
    finally:
        if catches:
            signal.signal(signal.SIGTERM, before)
        left = [one.process for one in running if one.process.poll() is None]
        for process in left:
            process.terminate()
        for process in left:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f}%  loss {task.fields[loss]}'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )


def _show(one: _Running, progress: Progress) -> None:
    started = any(one.job.work_dir.glob('*/vis_data/scalars.json'))
    loss = read_scalars(one.job.work_dir).get('loss') if started else None
    if loss is not None:
        progress.update(one.bar, completed=int(loss.steps[-1]), loss=f'{loss.values[-1]:.3f}')
