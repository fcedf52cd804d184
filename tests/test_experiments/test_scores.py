"""Means and spreads over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hgkd_mm.experiments.scores import print_table, write_summary

TABLES = [
    {'scratch': {'top-1': 10.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 20.0, 'mIoU': 5.0}},
    {'scratch': {'top-1': 12.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 26.0, 'mIoU': 5.0}},
    {'scratch': {'top-1': 17.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 29.0, 'mIoU': 5.0}},
]


def test_mean_and_sample_deviation_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table('a title', TABLES, head='start')
    printed = capsys.readouterr().out
    assert 'a title' in printed and '25.0 ± 4.6' in printed and '13.0 ± 3.6' in printed
    print_table('one seed', TABLES[:1], head='start')
    printed = capsys.readouterr().out
    assert '10.0' in printed and '±' not in printed


def test_what_is_written_has_the_single_values(tmp_path: Path) -> None:
    write_summary(tmp_path / 's.json', TABLES, seeds=[0, 1, 2])
    record = json.loads((tmp_path / 's.json').read_text())
    assert record['seeds'] == [0, 1, 2] and record['versions']['torch'] == torch.__version__
    scores = record['scores']
    assert scores['scratch']['top-1']['mean'] == pytest.approx(13.0)
    # deviations -3, -1, 4: 26 / 2
    assert scores['scratch']['top-1']['std'] == pytest.approx(13.0**0.5)
    assert scores['H-GKD']['mIoU']['std'] == 0
    assert scores['H-GKD']['top-1']['values'] == [20.0, 26.0, 29.0]
