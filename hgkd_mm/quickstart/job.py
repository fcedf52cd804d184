"""One training by tools/train.py, in a process of its own."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from hgkd_mm.utils.files import sha256_of
from hgkd_mm.utils.launch import override
from hgkd_mm.utils.work_dir import held, passed_on

from .data import ROOT


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as a process of its own.

    A job counts as done if its last checkpoint is there and was made with the same config,
    options and teacher file. Otherwise it is trained anew: what stands in ``work_dir`` is moved
    aside, and removed only if a job stopped before its first checkpoint.

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
        return settings

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        loop = self.settings.train_cfg
        last = f'iter_{loop.max_iters}' if _by_iterations(loop) else f'epoch_{loop.max_epochs}'
        return self.work_dir / f'{last}.pth'

    @property
    def request(self) -> Path:
        """What the finished job was asked to do."""
        return self.work_dir / 'request.txt'

    @cached_property
    def wanted(self) -> str:
        """All that the run depends on, taken before it starts."""
        return _request(self.settings)

    @cached_property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return _iterations(self.settings)

    @property
    def seconds(self) -> float | None:
        """How long the finished job took, beside whatever else ran; None if nobody noted it."""
        return float(self._seconds.read_text()) if self._seconds.is_file() else None

    @property
    def _seconds(self) -> Path:
        return self.work_dir / 'seconds.txt'

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
        """Starts the process with so many threads, fewer if the environment says so.

        Raises:
            BusyError: another training uses the folder.
        """
        asked = os.environ.get('OMP_NUM_THREADS', '')
        threads = min(threads, int(asked)) if asked.isdigit() else threads
        _ = self.wanted
        config = self.work_dir / 'config.py'
        command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config)]
        command += ['--work-dir', str(self.work_dir)]
        environment = os.environ | {'OMP_NUM_THREADS': str(threads)} | passed_on(self.work_dir)
        with held(self.work_dir) as lock:
            self._clear()
            self.work_dir.mkdir(exist_ok=True)
            self.settings.dump(config)
            with self.log.open('w') as out:
                return subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=environment,
                    # the training keeps the lock, also where this process ends before it
                    pass_fds=[] if lock is None else [lock.fileno()],
                )

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

    def finish(self, process: subprocess.Popen, seconds: float) -> None:
        """Marks the job as done, or says what went wrong.

        Args:
            process: what `start` gave, ended.
            seconds: how long it ran.

        Raises:
            RuntimeError: the process stopped early; the message ends with its last lines.
        """
        if process.returncode != 0 or not self.checkpoint.is_file():
            tail = '\n'.join(self.log.read_text().splitlines()[-15:])
            raise RuntimeError(
                f'{self.title} stopped (exit {process.returncode}). Its log, {self.log}:\n{tail}'
            )
        self._seconds.write_text(f'{seconds:.1f}\n')
        self.request.write_text(self.wanted)


def folder_name(title: str) -> str:
    """A title as the name of a folder: 'L_feat + L_sim' becomes 'l-feat-l-sim'."""
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in title.lower()).split())


def _by_iterations(loop: ConfigDict) -> bool:
    return loop.type == 'IterBasedTrainLoop'


def _request(settings: Config) -> str:
    """The config, what the weight files that it starts from hold, and which images there are."""
    files = {name: sha256_of(Path(path)) for name, path in _weight_files(settings).items()}
    dataset = settings.train_dataloader.dataset
    root = Path(dataset.data_root)
    # Seed and version of Scenes, whose COCO and ADE20K layouts lie one folder deeper.
    made = [path for path in (root / 'meta.json', root.parent / 'meta.json') if path.is_file()]
    images = made[0].read_text() if made else f'{_count(settings)} images'
    return f'{settings.pretty_text}\nteachers: {files}\nimages: {images}\n'


def _weight_files(settings: Config) -> dict[str, str]:
    """Files that training starts from: teachers, and a backbone's pre-training."""
    model = settings.model
    files = {name: teacher.checkpoint for name, teacher in (model.get('teachers') or {}).items()}
    start = model.backbone.get('init_cfg')
    return files | {'backbone': start.checkpoint} if start else files


def _count(settings: Config) -> int:
    # Transforms that hold others look for them in the default scope.
    with DefaultScope.overwrite_default_scope(settings.get('default_scope')):
        return len(DATASETS.build(settings.train_dataloader.dataset))


def _iterations(settings: Config) -> int:
    if _by_iterations(settings.train_cfg):
        return settings.train_cfg.max_iters
    loader = settings.train_dataloader
    images = _count(settings)
    per_epoch = images / loader.batch_size
    per_epoch = math.floor(per_epoch) if loader.get('drop_last') else math.ceil(per_epoch)
    if per_epoch == 0:
        raise RuntimeError(
            f'{images} images in {loader.dataset.data_root} do not fill one batch of '
            f'{loader.batch_size}: add images or lower train_dataloader.batch_size.'
        )
    return settings.train_cfg.max_epochs * per_epoch
