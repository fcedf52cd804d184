"""Masking, methods, kernels and parity on small inputs, and the command that prints them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.teachers import ARCH

from hgkd_mm.benchmark import Settings, Stage, profile
from hgkd_mm.benchmark.encoder import build_network
from hgkd_mm.benchmark.masking import measure_masking
from hgkd_mm.benchmark.methods import measure_methods
from hgkd_mm.benchmark.parity import FLOOR, largest_error

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = Settings(network='resnet18', batch=2, size=64, rounds=1)


def test_masking_saves_what_it_drops() -> None:
    stage = Stage('masking')
    measure_masking(stage, SMALL, (0.5,), vit=ARCH)
    (table,) = stage.tables
    every, half = table.records
    # 16 tokens; 3 blocks, after blocks 0 and 1 half of them go.
    assert every['left'] == (16, 16)
    assert half['left'] == (8, 4)
    assert (every['mean_share'], half['mean_share']) == (1, (16 + 8 + 4) / 48)
    assert half['saved_bytes'] < 0.75 * every['saved_bytes']
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_every_method_is_timed_and_the_chosen_one_marked() -> None:
    stage = Stage('methods')
    measure_methods(stage, Settings(batch=1, size=64, rounds=1))
    (table,) = stage.tables
    assert {r['product'] for r in table.records} == {'forward', 'grad_input', 'grad_weight'}
    for row, record in zip(table.rows, table.records, strict=True):
        assert len(row) == len(table.columns)
        assert [cell for cell in row if cell.endswith('*')], row
        assert record[record['chosen']] > 0


def test_the_profile_names_the_costly_ops() -> None:
    stage = Stage('profile')
    profile.measure_kernels(stage, SMALL, build_network('resnet18'), ('tiles',))
    sums, costly = stage.tables
    assert [record['step'] for record in sums.records] == ['tiles']
    assert 'aten::mkldnn_convolution' in [row[0] for row in costly.rows]
    times = [r['ms'] for r in costly.records]
    assert times == sorted(times, reverse=True)


def test_names_of_kernels_are_shortened() -> None:
    name = 'void at::native::(anonymous namespace)::gather_kernel<float, at::native::Sum>(float*)'
    assert profile.short_name(name) == 'gather_kernel<float, Sum>(float*)'
    assert profile.short_name('a' * 100, most=10) == 'a' * 9 + '…'


def test_waits_are_told_by_the_line_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)
    with profile.count_waits() as waits:
        for _ in range(2):
            torch.overrides.warnings.warn(profile.WAIT_MESSAGE, stacklevel=1)
        torch.overrides.warnings.warn('something else', stacklevel=1)
    (line,) = waits
    assert waits[line] == 2
    assert 'test_measurements.py:' in line
    assert line.endswith(' test_waits_are_told_by_the_line_that_waits')
    assert modes == ['warn', 'default']


def test_errors_are_relative_to_each_tensor_but_for_those_that_should_vanish() -> None:
    wanted = [torch.tensor([3.0, 4.0]), torch.tensor([1e-9])]
    assert largest_error([torch.tensor([3.0, 4.5]), wanted[1]], wanted) == pytest.approx(0.1)
    noise = largest_error([wanted[0], torch.tensor([2e-5])], wanted)
    assert noise == pytest.approx(2e-5 / (5 * FLOOR), rel=1e-3)
    assert not largest_error([wanted[0], torch.tensor([float('nan')])], wanted) <= 1


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    path = tmp_path / 'out.json'
    small = ['--network', 'resnet18', '--batch', '1', '--size', '64', '--rounds', '1']
    command = [sys.executable, 'tools/benchmark.py', 'encoder', '--engines', 'tiles', *small]
    done = subprocess.run(
        [*command, '--json', str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 'tiles' in done.stdout and 'torch' in done.stdout
    written = json.loads(path.read_text())
    assert [s['name'] for s in written['steps']] == ['dense', 'tiles', 'mmpretrain sparse']
    assert written['arguments']['batch'] == '1'
