"""Scenes and plain images that several tests train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgkd_mm.experiments.students import SPARK_CONFIG
from hgkd_mm.experiments.training import folder_options
from hgkd_mm.scenes import SceneFolder


@pytest.fixture(scope='package')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 and 12 Scenes, 20 a class, in all three layouts."""
    folder = SceneFolder(out=tmp_path_factory.mktemp('data') / 'scenes', train=240, val=12)
    list(folder.write(layouts=True, workers=1))
    return folder.out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images without labels."""
    rng = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / 'images' / f'nested{i % 2}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (70, 50 + i, 3), dtype=np.uint8)).save(path)
    return tmp_path / 'images'


@pytest.fixture
def tiny(folder: Path) -> dict[str, object]:
    """Options of an epoch of two steps on these images."""
    return {
        **folder_options(folder, SPARK_CONFIG),
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_epochs': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
    }
