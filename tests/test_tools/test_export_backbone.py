"""tools/export_backbone.py, run as a user runs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torchvision
from helpers.exports import random_backbone, write_checkpoint
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
RESNET = dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3))


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location('export_tool', ROOT / 'tools/export_backbone.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # it silences the log of its process, which here is that of the other tests
    monkeypatch.setattr(module.logging, 'disable', lambda level: None)
    return module


def run(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr('sys.argv', ['export_backbone.py', *map(str, words)])
    tool.main()


def test_writes_and_reports(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = write_checkpoint(tmp_path / 'epoch_4.pth', random_backbone(RESNET), RESNET)
    out = tmp_path / 'r18.safetensors'
    run(tool, monkeypatch, checkpoint, '--to', 'torchvision', out)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'epoch_4.pth -> torchvision.models.resnet18()'
    assert lines[1].startswith('  100 of 102 weights (2 missing: fc.weight, fc.bias')
    assert '  epoch: 4' in lines and '  method: HGKD' in lines
    network = torchvision.models.resnet18()
    result = network.load_state_dict(load_file(out), strict=False)
    assert result.missing_keys == ['fc.weight', 'fc.bias'] and not result.unexpected_keys


def test_says_which_size_an_onnx_file_takes(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # windows are cut in Python
    swin = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
        window_size=2,
        img_size=64,
    )
    network = MODELS.build({**swin, '_scope_': 'mmpretrain'})
    checkpoint = write_checkpoint(tmp_path / 's.pth', network, swin)
    run(tool, monkeypatch, checkpoint, '--to', 'onnx', '--size', '96x64', tmp_path / 's.onnx')
    lines = capsys.readouterr().out.splitlines()
    assert '  input_size: 96x64' in lines and '  batch_size: 1' in lines


def test_errors_are_one_sentence(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tool, monkeypatch, tmp_path / 'gone.pth', '--to', 'timm', tmp_path / 'a.pth')
    assert str(stopped.value).startswith('tools/export_backbone.py: There is no checkpoint at')
    deep = dict(type='ResNetV1d', depth=50)
    checkpoint = write_checkpoint(tmp_path / 'd.pth', random_backbone(deep), deep)
    with pytest.raises(SystemExit) as stopped:
        run(tool, monkeypatch, checkpoint, '--to', 'torchvision', tmp_path / 'a.pth')
    assert 'torchvision has no counterpart of ResNetV1d' in str(stopped.value)
    assert not (tmp_path / 'a.pth').exists()
