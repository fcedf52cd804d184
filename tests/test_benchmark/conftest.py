"""A small config for the benchmark of whole steps."""

from pathlib import Path

import pytest
from helpers.teachers import ARCH
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs/pretrain'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The flagship with a ResNet-18, a teacher of 24 channels and a queue of 8 entries."""
    whole = Config.fromfile(CONFIGS / 'hgkd_r50_mae.py')
    model = whole.model
    model.backbone.depth = 18
    model.backbone.drop_path_rate = 0.0
    model.teachers.mim.arch = ARCH
    model.heads.sim.queue_size = 8
    path = tmp_path / 'small.py'
    whole.dump(path)
    return path
