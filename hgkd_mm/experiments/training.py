"""Trainings in processes of their own, side by side; finished ones are not repeated."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hgkd_mm.utils.files import sha256_of
from hgkd_mm.utils.launch import override
from hgkd_mm.utils.processor import usable_cores
from hgkd_mm.utils.signals import exit_on_sigterm
from hgkd_mm.utils.work_dir import held, passed_on, read_scalars

from .places import RESOURCES, WORKSPACE


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training by ``python -m hgkd_mm.train``.

    A job is done if its last checkpoint was made with the same config, options, weight files and
    images. Otherwise it is trained anew: what ``work_dir`` holds is moved aside, or removed if a
    job stopped before its first checkpoint.

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
        override(settings, self.options)
        for teacher in (settings.model.get('teachers') or {}).values():
            # The configs name assets/, which is not in the current folder everywhere.
            if (RESOURCES / teacher.checkpoint).is_file():
                teacher.checkpoint = str(RESOURCES / teacher.checkpoint)
        return settings

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        loop = self.settings.train_cfg
        counts_steps = loop.type == 'IterBasedTrainLoop'
        last = f'iter_{loop.max_iters}' if counts_steps else f'epoch_{loop.max_epochs}'
        return self.work_dir / f'{last}.pth'

    @property
    def request(self) -> Path:
        """The file that says what the finished job depended on."""
        return self.work_dir / 'request.txt'

    @cached_property
    def wanted(self) -> str:
        """The config, the hashes of the weight files that it starts from, and its images."""
        files = {name: sha256_of(Path(path)) for name, path in self._weight_files().items()}
        root = Path(self.settings.train_dataloader.dataset.data_root)
        # Seed and version of Scenes, whose COCO and ADE20K layouts lie one folder deeper.
        made = [path for path in (root / 'meta.json', root.parent / 'meta.json') if path.is_file()]
        images = made[0].read_text() if made else f'{self._image_count()} images'
        return f'{self.settings.pretty_text}\nteachers: {files}\nimages: {images}\n'

    @cached_property
    def iterations(self) -> int:
        """Iterations of the whole run.

        Raises:
            RuntimeError: the images do not fill a batch.
        """
        loop, loader = self.settings.train_cfg, self.settings.train_dataloader
        if loop.type == 'IterBasedTrainLoop':
            return loop.max_iters
        images = self._image_count()
        per_epoch = images / loader.batch_size
        per_epoch = math.floor(per_epoch) if loader.get('drop_last') else math.ceil(per_epoch)
        if per_epoch == 0:
            raise RuntimeError(
                f'{images} images in {loader.dataset.data_root} do not fill one batch of '
                f'{loader.batch_size}: add images or lower train_dataloader.batch_size.'
            )
        return loop.max_epochs * per_epoch

    @property
    def seconds(self) -> float | None:
        """How long the finished job took, beside whatever else ran; None if nobody noted it."""
        return float(self._seconds.read_text()) if self._seconds.is_file() else None

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
        """Starts the process with so many threads, fewer if OMP_NUM_THREADS says so.

        Raises:
            BusyError: another training uses the folder.
        """
        asked = os.environ.get('OMP_NUM_THREADS', '')
        threads = min(threads, int(asked)) if asked.isdigit() else threads
        _ = self.wanted  # what the files hold before the run
        config = self.work_dir / 'config.py'
        command = [sys.executable, '-m', 'hgkd_mm.train', str(config)]
        environment = os.environ | {'OMP_NUM_THREADS': str(threads)} | passed_on(self.work_dir)
        with held(self.work_dir) as lock:
            self._clear()
            self.work_dir.mkdir(exist_ok=True)
            self.settings.dump(config)
            with self.log.open('w') as out:
                return subprocess.Popen(
                    [*command, '--work-dir', str(self.work_dir)],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=WORKSPACE,
                    env=environment,
                    # the training keeps the lock, also where this process ends before it
                    pass_fds=[] if lock is None else [lock.fileno()],
                )

    def finish(self, process: subprocess.Popen, seconds: float) -> None:
        """Marks the job as done.

        Args:
            process: the ended process of `start`.
            seconds: how long it ran.

        Raises:
            RuntimeError: it stopped early; the message ends with its last lines.
        """
        if process.returncode != 0 or not self.checkpoint.is_file():
            tail = '\n'.join(self.log.read_text().splitlines()[-15:])
            raise RuntimeError(
                f'{self.title} stopped (exit {process.returncode}). Its log, {self.log}:\n{tail}'
            )
        self._seconds.write_text(f'{seconds:.1f}\n')
        self.request.write_text(self.wanted)

    @property
    def _seconds(self) -> Path:
        return self.work_dir / 'seconds.txt'

    def _weight_files(self) -> dict[str, str]:
        """Teachers, and the backbone's pre-training."""
        model = self.settings.model
        teachers = model.get('teachers') or {}
        files = {name: teacher.checkpoint for name, teacher in teachers.items()}
        start = model.backbone.get('init_cfg')
        return files | {'backbone': start.checkpoint} if start else files

    def _image_count(self) -> int:
        # Transforms that hold others look for them in the default scope.
        with DefaultScope.overwrite_default_scope(self.settings.get('default_scope')):
            return len(DATASETS.build(self.settings.train_dataloader.dataset))

    def _clear(self) -> None:
        """Leaves no file of another run in the folder, and deletes no result."""
        if not self.work_dir.is_dir() or not any(self.work_dir.iterdir()):
            return
        finished = self.request.is_file() or any(self.work_dir.glob('*.pth'))
        if self.log.is_file() and not finished:
            shutil.rmtree(self.work_dir)
            return
        free = (self.work_dir.with_name(f'{self.work_dir.name}.{i}') for i in itertools.count(1))
        aside = next(path for path in free if not path.exists())
        self.work_dir.rename(aside)
        print(f'{self.title}: what {self.work_dir} held of another run is now in {aside}')


def folder_name(title: str) -> str:
    """A title as the name of a folder: 'L_feat + L_sim' becomes 'l-feat-l-sim'."""
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in title.lower()).split())


def folder_options(folder: Path, config: Path) -> dict[str, object]:
    """Overrides that train a config on any folder of unlabelled images.

    Args:
        folder: nested folders of images of any size and kind; see ``UnlabelledFolder``.
        config: a config on Scenes, whose crops and flips are kept.
    """
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    dataset = dict(
        _delete_=True,
        type='UnlabelledFolder',
        data_root=str(folder),
        pipeline=[dict(type='LoadColorImage'), *pipeline[1:]],
    )
    return {'train_dataloader.dataset': dataset}


def train(*jobs: Job, side_by_side: int = 2) -> list[Path]:
    """Trains the jobs in order, some side by side, sharing the cores.

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
            # Both look at the data: what is wrong with it is an error before any work.
            _ = job.iterations, job.wanted
            todo.append(job)
    threads = max(1, usable_cores() // max(1, min(side_by_side, len(todo))))
    with _progress() as progress, _all_stopped() as running, exit_on_sigterm():
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


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen
    bar: TaskID
    started: float


@contextmanager
def _all_stopped() -> Iterator[list[_Running]]:
    """A list of processes that are terminated, or killed after 10 s, when the block is left."""
    running: list[_Running] = []
    try:
        yield running
    finally:
        left = [one.process for one in running if one.process.poll() is None]
        for process in left:
            process.terminate()
        for process in left:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
    loss = read_scalars(one.job.work_dir).get('loss')
    if loss is not None:
        progress.update(one.bar, completed=int(loss.steps[-1]), loss=f'{loss.values[-1]:.3f}')
