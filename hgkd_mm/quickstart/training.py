"""Runs tools/train.py in processes of their own and shows how far they are."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from mmpretrain.registry import DATASETS
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hgkd_mm.visualization import read_scalars

from .data import ROOT


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as a process of its own.

    A job counts as done if its last checkpoint is there and was made with the same config,
    options and teacher file; anything else in ``work_dir`` is removed and trained anew.

    Args:
        config: config file.
        work_dir: logs and checkpoints.
        options: overrides by dotted key, as ``--cfg-options`` takes them.
        title: shown beside the progress bar.
    """

    config: Path
    work_dir: Path
    options: dict[str, object]
    title: str

    @cached_property
    def settings(self) -> Config:
        """The config with its overrides."""
        settings = Config.fromfile(self.config)
        settings.merge_from_dict(self.options)
        return settings

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.work_dir / f'epoch_{self.settings.train_cfg.max_epochs}.pth'

    @property
    def request(self) -> Path:
        """What the finished job was asked to do."""
        return self.work_dir / 'request.txt'

    @cached_property
    def wanted(self) -> str:
        """All that the run depends on, taken before it starts."""
        return _request(self.settings)

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.work_dir / 'output.log'

    @property
    def done(self) -> bool:
        """Whether this very job was finished before."""
        here = self.checkpoint.is_file() and self.request.is_file()
        return here and self.request.read_text() == self.wanted

    def start(self, threads: int) -> subprocess.Popen:
        """Starts the process with so many threads, fewer if the environment says so."""
        asked = os.environ.get('OMP_NUM_THREADS', '')
        threads = min(threads, int(asked)) if asked.isdigit() else threads
        _ = self.wanted
        if self.work_dir.exists():
            shutil.rmtree(self.work_dir)
        self.work_dir.mkdir(parents=True)
        config = self.work_dir / 'config.py'
        self.settings.dump(config)
        command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config)]
        command += ['--work-dir', str(self.work_dir)]
        environment = os.environ | {'OMP_NUM_THREADS': str(threads)}
        with self.log.open('w') as out:
            return subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
            )

    def finish(self, process: subprocess.Popen) -> None:
        """Marks the job as done, or says what went wrong.

        Raises:
            RuntimeError: the process stopped early; the message ends with its last lines.
        """
        if process.returncode != 0 or not self.checkpoint.is_file():
            tail = '\n'.join(self.log.read_text().splitlines()[-15:])
            raise RuntimeError(
                f'{self.title} stopped (exit {process.returncode}). Its log, {self.log}:\n{tail}'
            )
        self.request.write_text(self.wanted)


def train(*jobs: Job) -> list[Path]:
    """Trains the jobs side by side, sharing the cores; finished ones are not repeated.

    Small networks on small images leave the second core nearly idle, so two trainings at once
    take little longer than one.

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
            todo.append((job, _iterations(job.settings)))
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, len(todo)))
    running: list[tuple[Job, int, subprocess.Popen]] = []
    try:
        for job, total in todo:
            running.append((job, total, job.start(threads)))
        if running:
            _watch(running)
    finally:
        _stop([process for _, _, process in running if process.poll() is None])
    return [job.checkpoint for job in jobs]


def _stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _request(settings: Config) -> str:
    """The config, what the teachers' files hold, and which images there are."""
    teachers = (settings.model.get('teachers') or {}).items()
    files = {name: Path(teacher.checkpoint).read_bytes() for name, teacher in teachers}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    dataset = settings.train_dataloader.dataset
    made = Path(dataset.data_root) / 'meta.json'  # seed and version of Scenes
    images = made.read_text() if made.is_file() else f'{len(DATASETS.build(dataset))} images'
    return f'{settings.pretty_text}\nteachers: {hashes}\nimages: {images}\n'


def _iterations(settings: Config) -> int:
    """Iterations of the whole run."""
    loader = settings.train_dataloader
    images = len(DATASETS.build(loader.dataset))
    per_epoch = images / loader.batch_size
    per_epoch = math.floor(per_epoch) if loader.get('drop_last') else math.ceil(per_epoch)
    if per_epoch == 0:
        raise RuntimeError(
            f'{images} images in {loader.dataset.data_root} do not fill one batch of '
            f'{loader.batch_size}: add images or lower train_dataloader.batch_size.'
        )
    return settings.train_cfg.max_epochs * per_epoch


def _watch(running: list[tuple[Job, int, subprocess.Popen]]) -> None:
    """Shows how far each job is until all have ended, or one of them badly."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f}%  loss {task.fields[loss]}'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        left = [
            (job, process, progress.add_task(job.title, total=total, loss='-'))
            for job, total, process in running
        ]
        while left:
            time.sleep(1)
            for item in list(left):
                job, process, task = item
                ended = process.poll() is not None
                started = any(job.work_dir.glob('*/vis_data/scalars.json'))
                loss = read_scalars(job.work_dir).get('loss') if started else None
                if loss is not None:
                    progress.update(
                        task, completed=int(loss.steps[-1]), loss=f'{loss.values[-1]:.3f}'
                    )
                if ended:
                    job.finish(process)
                    progress.update(task, completed=progress.tasks[task].total)
                    left.remove(item)
