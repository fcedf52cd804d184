"""Pixels and teachers are scored on the labels of a handful of Scenes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from hgkd_mm.scenes import CLASSES, SceneFolder

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/pretrain/hybrid-hgkd_r18_scenes.py')


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('probe_tool', ROOT / 'tools/probe_scenes.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    for _ in SceneFolder(out=folder, train=72, val=24).write(workers=1):
        pass
    return folder


@pytest.mark.parametrize(
    ('words', 'title'),
    [
        ([], 'raw pixels, 72 training and 24 validation images'),
        (['--config', CONFIG, '--teacher', 'cl'], "teacher 'cl', 72 training and 24 validation"),
    ],
)
def test_two_accuracies(
    tool: ModuleType,
    scenes: Path,
    words: list[str],
    title: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['probe', '--data', str(scenes), '--train', '72', *words])
    tool.main()
    printed = capsys.readouterr().out
    assert title in printed
    accuracies = re.search(r'linear probe ([\d.]+), kNN ([\d.]+)', printed).groups()
    assert all(0 <= float(accuracy) <= 100 for accuracy in accuracies)
    # A teacher that was trained with these labels knows more than chance.
    assert not words or float(accuracies[1]) > 30


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['--data', 'nowhere'], 'nowhere has no train/'),
        (['--teacher', 'cl'], 'give both or neither'),
        (
            ['--config', CONFIG, '--teacher', 'clx'],
            "^probe_scenes: There is no teacher called 'clx'",
        ),
    ],
)
def test_refused(
    tool: ModuleType,
    scenes: Path,
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['probe', '--data', str(scenes), *words])
    with pytest.raises(SystemExit, match=sentence):
        tool.main()


def test_missing_classes_shift_no_label(tool: ModuleType, tmp_path: Path) -> None:
    for index in (1, 3):
        (tmp_path / CLASSES[index]).mkdir()
        Image.new('RGB', (40, 40)).save(tmp_path / CLASSES[index] / f'{index}.jpg')
    _, labels = tool.pixels(tmp_path, 5)
    assert labels.tolist() == [1, 3]
