"""Means and spreads over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hgkd_mm.experiments.seeds import over_seeds, print_transfer_table, write_seeds_summary

TABLES = [
    {'scratch': {'top-1': 10.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 20.0, 'mIoU': 5.0}},
    {'scratch': {'top-1': 12.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 26.0, 'mIoU': 5.0}},
    {'scratch': {'top-1': 17.0, 'mIoU': 1.0}, 'H-GKD': {'top-1': 29.0, 'mIoU': 5.0}},
]


def test_mean_and_sample_deviation_by_hand() -> None:
    table = over_seeds(TABLES)
    assert table['scratch']['top-1'].mean == pytest.approx(13.0)
    # deviations -3, -1, 4: 26 / 2
    assert table['scratch']['top-1'].std == pytest.approx(13.0**0.5)
    assert table['H-GKD']['mIoU'].std == 0
    assert table['H-GKD']['top-1'].values == (20.0, 26.0, 29.0)
    assert str(table['H-GKD']['top-1']) == '25.0 ± 4.6'


def test_a_single_seed_has_no_spread() -> None:
    assert str(over_seeds(TABLES[:1])['scratch']['top-1']) == '10.0'


def test_tables_of_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match='2 kinds'):
        over_seeds([TABLES[0], {'scratch': {'top-1': 1.0}}])
    with pytest.raises(ValueError, match='0 seeds'):
        over_seeds([])


def test_what_is_printed_is_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = over_seeds(TABLES)
    print_transfer_table(table, 'a title')
    printed = capsys.readouterr().out
    assert 'a title' in printed and '25.0 ± 4.6' in printed and '13.0 ± 3.6' in printed
    write_seeds_summary(tmp_path / 's.json', table, seeds=[0, 1, 2])
    record = json.loads((tmp_path / 's.json').read_text())
    assert record['seeds'] == [0, 1, 2]
    assert record['scores']['H-GKD']['top-1']['values'] == [20.0, 26.0, 29.0]
