"""Trainings in processes of their own, side by side; finished ones are not repeated."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from rich.progress import Progress, TaskID

from hgkd_mm.utils.launch import override
from hgkd_mm.utils.process import exit_on_sigterm, usable_cores
from hgkd_mm.utils.work_dir import held, passed_on, read_scalars

from . import RESOURCES, WORKSPACE


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training by ``python -m hgkd_mm.train``.

    A job is done if its last checkpoint is of the same config and number of images, and newer than
    the weights and the Scenes that it was made from. Otherwise it is trained anew, and what
    ``work_dir`` holds is moved aside.
    """

    config: Path
    work_dir: Path  # logs and checkpoints
    options: dict[str, object]  # overrides by dotted key, as ``--cfg-options`` takes them
    title: str  # shown beside the progress bar

    @cached_property
    def settings(self) -> Config:
        """The config with its overrides."""
        settings = Config.fromfile(self.config)
        override(settings, self.options)
        for part in _pretrained_parts(settings.model):
            # The configs name assets/, which is not in the current folder everywhere.
            if (RESOURCES / part.checkpoint).is_file():
                part.checkpoint = str(RESOURCES / part.checkpoint)
        return settings

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        loop = self.settings.train_cfg
        counts_steps = loop.type == 'IterBasedTrainLoop'
        last = f'iter_{loop.max_iters}' if counts_steps else f'epoch_{loop.max_epochs}'
        return self.work_dir / f'{last}.pth'

    @cached_property
    def iterations(self) -> int:
        """Iterations of the whole run.

        Raises:
            RuntimeError: the images do not fill a batch.
        """
        loop, loader = self.settings.train_cfg, self.settings.train_dataloader
        if loop.type == 'IterBasedTrainLoop':
            return loop.max_iters
        # Transforms that hold others look for them in the default scope.
        with DefaultScope.overwrite_default_scope(self.settings.get('default_scope')):
            images = len(DATASETS.build(loader.dataset))
        per_epoch = images / loader.batch_size
        per_epoch = math.floor(per_epoch) if loader.get('drop_last') else math.ceil(per_epoch)
        if per_epoch == 0:
            raise RuntimeError(
                f'{images} images in {loader.dataset.data_root} do not fill one batch of '
                f'{loader.batch_size}: add images or lower train_dataloader.batch_size.'
            )
        return loop.max_epochs * per_epoch

    @property
    def done(self) -> bool:
        """Whether this very job was finished before."""
        made, request = self.checkpoint, self.work_dir / 'request.txt'
        if not made.is_file() or not request.is_file() or request.read_text() != self._request:
            return False
        return all(path.stat().st_mtime <= made.stat().st_mtime for path in self._sources())

    def start(self, threads: int) -> subprocess.Popen:
        """Starts the process with so many threads, or as many as OMP_NUM_THREADS says.

        Raises:
            BusyError: another training uses the folder.
        """
        config = self.work_dir / 'config.py'
        with held(self.work_dir) as lock:
            self._move_aside()
            self.work_dir.mkdir(exist_ok=True)
            self.settings.dump(config)
            with (self.work_dir / 'output.log').open('w') as out:
                return subprocess.Popen(
                    [sys.executable, '-m', 'hgkd_mm.train', config, '--work-dir', self.work_dir],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=WORKSPACE,
                    env={'OMP_NUM_THREADS': str(threads)} | os.environ | passed_on(self.work_dir),
                    pass_fds=[] if lock is None else [lock.fileno()],
                )

    def check(self, status: int) -> None:
        """Makes sure that the process, which ended with this status, trained to the end; notes it.

        Raises:
            RuntimeError: it stopped early; the message ends with its last lines.
        """
        if status != 0 or not self.checkpoint.is_file():
            log = self.work_dir / 'output.log'
            tail = '\n'.join(log.read_text().splitlines()[-15:])
            raise RuntimeError(f'{self.title} stopped (exit {status}). Its log, {log}:\n{tail}')
        # Last, because a training that fails in its final validation has a checkpoint too.
        (self.work_dir / 'request.txt').write_text(self._request)

    @cached_property
    def _request(self) -> str:
        return f'{self.settings.pretty_text}\n{self.iterations} iterations\n'

    def _sources(self) -> list[Path]:
        """Weights that it starts from; seed and version of Scenes, if they are the images."""
        root = Path(self.settings.train_dataloader.dataset.data_root)
        # The COCO and ADE20K layouts lie one folder deeper.
        files = [root / 'meta.json', root.parent / 'meta.json']
        files += [Path(part.checkpoint) for part in _pretrained_parts(self.settings.model)]
        return [path for path in files if path.is_file()]

    def _move_aside(self) -> None:
        if self.work_dir.is_dir() and any(self.work_dir.iterdir()):
            aside = f'{self.work_dir.name}.{time.strftime("%Y%m%d-%H%M%S")}'
            self.work_dir.rename(self.work_dir.with_name(aside))
            print(f'{self.title}: what {self.work_dir} held of another run is now in {aside}')


def _pretrained_parts(model: ConfigDict) -> list[ConfigDict]:
    """What in a model's config names a weight file: teachers, and the start of the backbone."""
    parts = [*(model.get('teachers') or {}).values(), model.backbone.get('init_cfg') or {}]
    return [part for part in parts if 'checkpoint' in part]


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


def train(*jobs: Job, side_by_side: int = 2) -> None:
    """Trains the jobs in order, some side by side, sharing the cores.

    Small networks on small images leave the second core nearly idle, so two trainings at once
    take little longer than one.

    Raises:
        RuntimeError: one of them stopped; the others are stopped as well.
    """
    # What is wrong with the data of any is an error before any work.
    _ = [job.iterations for job in jobs]
    todo = [job for job in jobs if not job.done]
    for job in jobs:
        if job not in todo:
            print(f'{job.title}: done before, {job.checkpoint}')
    threads = max(1, usable_cores() // max(1, min(side_by_side, len(todo))))
    running: list[tuple[Job, subprocess.Popen, TaskID]] = []
    with Progress() as progress, exit_on_sigterm():
        try:
            while todo or running:
                while todo and len(running) < side_by_side:
                    job = todo.pop(0)
                    bar = progress.add_task(job.title, total=job.iterations)
                    running.append((job, job.start(threads), bar))
                time.sleep(1)
                running = [one for one in running if not _ended(*one, progress)]
        finally:
            for _, process, _ in running:
                process.terminate()
            for _, process, _ in running:
                process.wait()


def _ended(job: Job, process: subprocess.Popen, bar: TaskID, progress: Progress) -> bool:
    """Shows how far a training is; returns whether it is finished."""
    status = process.poll()
    with suppress(FileNotFoundError, KeyError):  # nothing is logged yet
        loss = read_scalars(job.work_dir)['loss']
        shown = f'{job.title}, loss {loss.values[-1]:.3f}'
        progress.update(bar, description=shown, completed=int(loss.steps[-1]))
    if status is not None:
        job.check(status)
        progress.update(bar, completed=job.iterations)
    return status is not None
