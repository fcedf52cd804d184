"""The sections on packages and machine, what runs there, and the tool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tools import load_tool

from hgkd_mm.doctor import Section, machine
from hgkd_mm.sparse import TileMap
from hgkd_mm.utils import environment
from hgkd_mm.utils.environment import STACKS, read_pins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.mark.parametrize('name', STACKS)
def test_pinned_versions_are_a_tested_stack(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = read_pins(ROOT / name)
    needed = {n: v for n, v in pins.items() if n not in machine.NOT_NEEDED_TO_RUN}
    local = {**needed, 'torch': f'{pins["torch"]}+cu130'}
    lite = {('mmcv-lite' if n == 'mmcv' else n): v for n, v in needed.items()}
    for installed in (pins, local, lite):
        monkeypatch.setattr(environment, 'installed_versions', lambda found=installed: found)
        section = machine.look_at_packages(ROOT)
        assert section.facts['tested stack'] == f'yes: {name}'
        assert section.problems == section.notes == []


def test_another_version_is_a_note_and_a_missing_package_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pins = read_pins(ROOT / STACKS[0])
    installed = {n: v for n, v in pins.items() if n != 'numpy'} | {'torch': '2.4.0'}
    monkeypatch.setattr(environment, 'installed_versions', lambda: installed)
    section = machine.look_at_packages(ROOT)
    (problem,), (note,) = section.problems, section.notes
    assert 'numpy' in problem and 'torch 2.4.0' in note and pins['torch'] in note
    assert section.facts['tested stack'].startswith('no')
    assert section.facts['numpy'] == 'not installed'


@pytest.mark.parametrize('free', [5e8, 5e10])
def test_machine(free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=free))
    section = machine.look_at_machine(tmp_path / 'not' / 'made')
    assert {'System', 'Processor', 'Memory', 'Python', 'CUDA available'} <= set(section.facts)
    assert len(section.problems) == (free < 1e9)
    assert all('0.50 GB' in p and '--work-dir' in p for p in section.problems)


def test_gpus_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_driver() -> bool:
        warnings.warn('CUDA initialization: The NVIDIA driver is too old', stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, 'is_available', without_driver)
    assert 'The NVIDIA driver is too old' in machine.look_at_machine(tmp_path).notes[0]


@pytest.mark.parametrize('ops', [True, False])
def test_all_is_right_here(ops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, 'has_ops', lambda: ops)
    section = machine.what_runs()
    assert section.problems == []
    assert {'mmpretrain', 'mmseg'} <= set(section.facts)
    assert ('mmdet' in section.facts) == ('mmcv.ops.nms, cpu' in section.facts) == ops
    assert any('--ops' in note for note in section.notes) != ops
    assert float(section.facts['sparse step, tiles, cpu'].split()[-1]) < 1e-4


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_an_mmcv_op_that_fails(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nms(given: str) -> None:
        if given == device:
            raise RuntimeError('CUDA error: no kernel image is available')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: device == 'cuda')
    monkeypatch.setattr(machine, 'run_nms', nms)
    # there is no GPU to run it on
    monkeypatch.setattr(machine, 'sparse_error', lambda **_: 0.0)
    section = machine.what_runs()
    assert f'sparse step, tiles, {device}' in section.facts
    found, other = section.problems, section.notes
    if device == 'cuda':  # pre-training does without
        found, other = other, found
    assert '--rebuild-mmcv' in found[0] and other == []


@pytest.mark.parametrize('factor', [0.0, float('nan')])
def test_wrong_convolution(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = TileMap.conv2d

    def wrong(self: TileMap, weight, bias, window, groups) -> TileMap:
        out = right(self, weight, bias, window, groups)
        return out.with_rows(out.rows.roll(1, dims=0) + factor)

    monkeypatch.setattr(TileMap, 'conv2d', wrong)
    section = machine.what_runs()
    assert any(p.startswith('Sparse step, tiles, cpu ') for p in section.problems)
    assert 'sparse step, tiles, cpu' not in section.facts


@pytest.mark.parametrize(
    ('error', 'cure'),
    [
        (RuntimeError('operator torchvision::nms does not exist'), 'different builds'),
        (ImportError('libGL.so.1: cannot open shared object file'), 'no libGL'),
        (ImportError('_ext.so: undefined symbol: _ZN3c10'), '--rebuild-mmcv'),
        (RuntimeError('CUDA error: no kernel image is available'), '--rebuild-mmcv'),
        (ValueError('anything else\nin two lines'), 'install the tested versions'),
    ],
)
def test_known_errors_get_their_cure(
    error: Exception, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    section = Section(title='T')
    with section.attempt('import a'):
        print('noise')
        raise error
    (sentence,) = section.problems
    assert sentence.startswith(f'import a failed ({type(error).__name__}: ') and cure in sentence
    assert '\n' not in sentence and capsys.readouterr().out == ''


def test_the_report_of_a_broken_machine_needs_no_package() -> None:
    code = "import sys, hgkd_mm.doctor; print({'torch', 'mmengine', 'numpy'} & set(sys.modules))"
    environ = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout == 'set()\n'


@pytest.mark.parametrize('status', [0, 1])
def test_tool(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ('look_at_packages', 'look_at_machine', 'what_runs'):
        found = Section(title=part, facts={'a': '1', 'long': '2'}, notes=['Slow.'])
        monkeypatch.setattr(f'hgkd_mm.doctor.{part}', lambda *_, found=found: found)
    if status:
        monkeypatch.setitem(sys.modules, 'hgkd_mm.doctor.config', None)
    config = str(ROOT / 'configs/cls/r50_ft300_in1k.py')
    options = ['--cfg-options', 'train_dataloader.dataset=None', 'custom_hooks=None']
    options += ['val_dataloader=None', 'test_dataloader=None', 'model.backbone.init_cfg=None']
    assert load_tool('doctor').main([config, *options]) == status
    *sections, last = capsys.readouterr().out.strip().split('\n\n')
    assert sections[0] == 'look_at_packages\n  a     1\n  long  2\n  Note: Slow.'
    assert sections[3].startswith(f'Config {config}\n')
    assert last == ('1 problem(s).' if status else 'No problem found.')
    if status:
        assert 'PROBLEM: Importing mmengine, mmpretrain and hgkd_mm failed' in sections[3]
