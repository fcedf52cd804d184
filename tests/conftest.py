"""Fixtures of all tests, and the rule that skips GPU tests where there is no GPU."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

import hgkd_mm  # noqa: F401  before mmpretrain, which stops beside some versions of transformers


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason='needs a CUDA device, and torch sees none')
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def default_scope_ends_with_the_test() -> Iterator[None]:
    """Runner and mmseg's API set MMEngine's default scope for good; no test inherits another's."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(autouse=True)
def mmengines_readers_come_back() -> Iterator[None]:
    """What tools/train.py registers knows the folders of its run; no test inherits another's."""
    before = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = before


@pytest.fixture
def seed() -> int:
    """Seeds Python, numpy and torch, and gives the seed for generators of one's own."""
    value = 0
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value
