"""Where the quickstart's images come from, and what the machine computes in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]


def make_scenes(folder: Path, *, images: int = 6000) -> None:
    """Writes Scenes with so many training images, unless they are there already.

    Raises:
        RuntimeError: they could not be made; what went wrong was printed.
    """
    command = [sys.executable, str(ROOT / 'tools' / 'make_scenes.py'), '--out', str(folder)]
    if subprocess.run([*command, '--train', str(images)], check=False).returncode:
        raise RuntimeError(f'Scenes could not be written to {folder}; see above.')


def folder_options(folder: Path, config: Path) -> dict[str, object]:
    """Overrides that train a Scenes config on any folder of unlabelled images.

    Args:
        folder: nested folders of images of any size and kind; see ``UnlabelledFolder``.
        config: the Scenes config, whose crops and flips are kept.
    """
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    dataset = dict(
        _delete_=True,
        type='UnlabelledFolder',
        data_root=str(folder),
        pipeline=[dict(type='LoadColorImage'), *pipeline[1:]],
    )
    return {'train_dataloader.dataset': dataset}


def cpu_has_bfloat16() -> bool:
    """Whether the CPU says that it multiplies bfloat16 (AVX-512 BF16 or AMX, Linux)."""
    info = Path('/proc/cpuinfo')
    flags = info.read_text() if info.is_file() else ''
    return 'avx512_bf16' in flags or 'amx_bf16' in flags
