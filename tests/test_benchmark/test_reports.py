"""The tables of tools/benchmark.py, on small inputs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.teachers import ARCH

from hgkd_mm.benchmark import (
    VARIANTS,
    Settings,
    encoder_report,
    masking_report,
    methods_report,
    profile_report,
    ratios_report,
    step_report,
)

ROOT = Path(__file__).parents[2]
SMALL = Settings(network='resnet18', batch=2, size=64, rounds=1)


def test_encoder_compares_all_with_dense() -> None:
    report = encoder_report(SMALL, ['tiles', 'masked_dense'])
    names = ['dense', 'tiles', 'masked_dense', 'mmpretrain sparse']
    assert [row[0] for row in report.rows] == [r['name'] for r in report.records] == names
    saved = {r['name']: r['saved_bytes'] for r in report.records}
    assert saved['tiles'] < 0.7 * saved['dense'] < saved['masked_dense']
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert report.records[0]['ratio'] == 1 and 'resnet18, batch 2, 64 px' in report.title


def test_a_network_without_a_counterpart_in_mmpretrain() -> None:
    report = encoder_report(Settings('mobilenet_v2', 1, 64, rounds=1), ['tiles'])
    assert [row[0] for row in report.rows] == ['dense', 'tiles']


def test_the_line_over_mask_ratios() -> None:
    report = ratios_report(SMALL, (0.0, 0.5))
    assert [r['visible'] for r in report.records] == [1.0, 1.0, 0.5]
    _, full, half = (r['saved_bytes'] for r in report.records)
    assert half == pytest.approx(full / 2, rel=0.1)


def test_the_step_has_all_variants_and_parts(config: Path) -> None:
    report = step_report(SMALL, config, vit=ARCH)
    assert [row[0] for row in report.rows] == [v.name for v in VARIANTS]
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert all(t > 0 for r in report.records for t in r['parts'].values())


def test_masking_saves_what_it_drops() -> None:
    report = masking_report(SMALL, (0.5,), vit=ARCH)
    every, half = report.records
    # 16 tokens; 3 blocks, after blocks 0 and 1 half of them go.
    assert every['left'] == (16, 16)
    assert half['left'] == (8, 4)
    assert (every['mean_share'], half['mean_share']) == (1, (16 + 8 + 4) / 48)
    assert half['saved_bytes'] < 0.75 * every['saved_bytes']
    assert all(len(row) == len(report.columns) for row in report.rows)


def test_the_profile_names_the_costly_ops() -> None:
    report = profile_report(SMALL, 'tiles', steps=1)
    assert 'aten::mkldnn_convolution' in [row[0] for row in report.rows]
    times = [r['ms'] for r in report.records]
    assert times == sorted(times, reverse=True)


def test_every_method_is_timed_and_the_chosen_one_marked() -> None:
    report = methods_report(Settings(batch=1, size=64, rounds=1))
    assert {r['product'] for r in report.records} == {'forward', 'grad_input', 'grad_weight'}
    for row, record in zip(report.rows, report.records, strict=True):
        assert len(row) == len(report.columns)
        assert [cell for cell in row if cell.endswith('*')], row
        assert record[record['chosen']] > 0


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
