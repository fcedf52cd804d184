"""Runs tools/train.py as a process of its own and shows how far it is."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config
from mmpretrain.registry import DATASETS
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hgkd_mm.visualization import read_scalars

from .data import ROOT


def train(config: Path, work_dir: Path, options: dict[str, object], title: str) -> Path:
    """Trains a config to its end, or finds that this was done already.

    A run counts as done if its last checkpoint is there and was made with the same config,
    options and teacher file; anything else in ``work_dir`` is removed and trained anew.

    Args:
        config: config file.
        work_dir: logs and checkpoints.
        options: overrides by dotted key, as ``--cfg-options`` takes them.
        title: shown beside the progress bar.

    Returns:
        The last checkpoint.

    Raises:
        RuntimeError: training stopped; the message ends with the last lines of its log.
    """
    settings = Config.fromfile(config)
    settings.merge_from_dict(options)
    checkpoint = work_dir / f'epoch_{settings.train_cfg.max_epochs}.pth'
    request = work_dir / 'request.txt'
    wanted = _request(settings)
    if checkpoint.is_file() and request.is_file() and request.read_text() == wanted:
        print(f'{title}: done before, {checkpoint}')
        return checkpoint
    total = _iterations(settings)
    if work_dir.exists():
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True)
    overrides = work_dir / 'config.py'
    settings.dump(overrides)

    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(overrides)]
    command += ['--work-dir', str(work_dir)]
    log = work_dir / 'output.log'
    with log.open('w') as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            _show_progress(process, work_dir, total, title)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0 or not checkpoint.is_file():
        tail = '\n'.join(log.read_text().splitlines()[-15:])
        raise RuntimeError(f'{title} stopped (exit {process.returncode}). Its log, {log}:\n{tail}')
    request.write_text(wanted)
    return checkpoint


def _request(settings: Config) -> str:
    """All that a run depends on: its config, and what the teachers' files hold."""
    teachers = (settings.model.get('teachers') or {}).items()
    files = {name: Path(teacher.checkpoint).read_bytes() for name, teacher in teachers}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return f'{settings.pretty_text}\nteachers: {hashes}\n'


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


def _show_progress(process: subprocess.Popen, work_dir: Path, total: int, title: str) -> None:
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f}%  loss {task.fields[loss]}'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total, loss='-')
        while process.poll() is None:
            time.sleep(1)
            started = any(work_dir.glob('*/vis_data/scalars.json'))
            loss = read_scalars(work_dir).get('loss') if started else None
            if loss is not None:
                progress.update(task, completed=int(loss.steps[-1]), loss=f'{loss.values[-1]:.3f}')
        if process.returncode == 0:
            progress.update(task, completed=total)
