"""Folders of images, and tools as modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='session')
def tool() -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f'{name}_tool', TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of different sizes in two classes, the second of them bright."""
    generator = np.random.default_rng(0)
    for index in range(6):
        file = tmp_path / 'images' / ('ab'[index % 2]) / f'{index}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (70 + 9 * index, 80, 3)) + 127 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / 'images'
