"""Where the quickstart's images come from, and what the machine computes in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

from hgkd_mm.utils.processor import cpu_has_bfloat16

__all__ = ['ROOT', 'cpu_has_bfloat16', 'folder_options', 'make_scenes']

ROOT = Path(__file__).resolve().parents[2]


def make_scenes(folder: Path, *, images: int = 6000, layouts: bool = False) -> None:
    """Writes Scenes with so many training images; what is there already is kept.

    Args:
        folder: where they go.
        images: number of training images.
        layouts: those of COCO and ADE20K as well, which detection and segmentation read.

    Raises:
        RuntimeError: they could not be made; what went wrong was printed.
    """
    command = [sys.executable, str(ROOT / 'tools' / 'make_scenes.py'), '--out', str(folder)]
    command += ['--train', str(images), *([] if layouts else ['--folders-only'])]
    if subprocess.run(command, check=False).returncode:
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
