from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hgkd_mm.doctor import Section, probes, report
from hgkd_mm.sparse import TileMap
from hgkd_mm.utils import environment


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    # building three models takes seconds, and environment has tests of its own
    monkeypatch.setattr(probes, 'check_running', lambda *, ops: [])
    monkeypatch.setattr(probes, 'has_ops', lambda: True)


@pytest.mark.parametrize(
    ('free', 'shared', 'problems', 'notes'), [(5e8, 5e10, 1, 0), (5e10, 6e7, 0, 1)]
)
def test_machine(
    free: float,
    shared: float,
    problems: int,
    notes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=shared if path == Path('/dev/shm') else free)

    monkeypatch.setattr(shutil, 'disk_usage', usage)
    section = probes.machine(tmp_path / 'not' / 'made')
    assert asked == [tmp_path, Path('/dev/shm')]
    assert {'System', 'Processor', 'Memory', 'Python', 'CUDA available'} <= set(section.facts)
    assert len(section.problems) == problems
    assert all('0.50 GB' in p and '--work-dir' in p for p in section.problems)
    assert len(section.notes) == notes
    assert all('/dev/shm has 0.06 GB' in n and '--shm-size' in n for n in section.notes)


def test_what_is_printed_is_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found = Section(title='What runs', facts={'a': 'b'}, problems=['P.'], notes=['N.'])

    def what_runs(begin) -> Section:
        begin('something')
        print('noise without an end', end='')
        return found

    monkeypatch.setattr(probes, 'machine', lambda _: Section(title='Machine'))
    monkeypatch.setattr(probes, 'what_runs', what_runs)
    probes.main()
    output = capsys.readouterr().out
    assert report.read_probes(output, 'ended') == [Section(title='Machine'), found]


def test_all_is_right_here() -> None:
    begun = []
    section = probes.what_runs(begun.append)
    assert section.problems == []
    assert 'mmdet' in section.facts['models']
    assert 'sparse step, tiles, cpu' in begun
    assert float(section.facts['sparse step, tiles, cpu'].split()[-1]) < 1e-4


def test_broken_packages_and_missing_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, 'check_running', lambda *, ops: [f'{ops}'])
    monkeypatch.setattr(probes, 'has_ops', lambda: False)
    section = probes.what_runs(lambda what: None)
    assert section.problems == ['False']
    assert 'models' not in section.facts
    assert any('--ops' in note for note in section.notes)


@pytest.mark.parametrize('works', [True, False])
def test_mmcv_op_on_a_gpu(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def nms(device: str = 'cpu') -> None:
        tried.append(device)
        if not works:
            raise RuntimeError('CUDA error: no kernel image is available')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(environment, 'run_nms', nms)
    # there is no GPU to run it on
    monkeypatch.setattr(probes, 'sparse_error', lambda **_: 0.0)
    section = probes.what_runs(lambda what: None)
    assert section.problems == []
    assert tried == ['cuda']
    assert {'sparse step, tiles, cpu', 'sparse step, tiles, cuda'} <= set(section.facts)
    assert len([note for note in section.notes if '--rebuild-mmcv' in note]) == (not works)


@pytest.mark.parametrize('factor', [0.0, float('nan')])
def test_wrong_convolution(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = TileMap.conv2d

    def wrong(self: TileMap, weight, bias, window, groups) -> TileMap:
        out = right(self, weight, bias, window, groups)
        return out.with_rows(out.rows.roll(1, dims=0) + factor)

    monkeypatch.setattr(TileMap, 'conv2d', wrong)
    section = probes.what_runs(lambda what: None)
    assert any(p.startswith('Sparse step, tiles, cpu ') for p in section.problems)
    assert 'sparse step, tiles, cpu' not in section.facts


@pytest.mark.parametrize('wheels', [[], ['spconv']])
def test_spconv_is_optional(wheels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hgkd_mm.sparse.spconv.installed_wheels', lambda: wheels)
    section = probes.what_runs(lambda what: None)
    assert section.problems == []
    assert 'sparse step, spconv, cpu' not in section.facts
    assert any('spconv' in note for note in section.notes) == bool(wheels)
