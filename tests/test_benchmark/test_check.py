"""tools/gpu_check.py, on the CPU: that it runs, and that what was measured survives."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from hgkd_mm.benchmark import Stage, check
from hgkd_mm.benchmark.check import STAGES, Check, run_stages, unpack
from hgkd_mm.benchmark.encoder import GRAPH
from hgkd_mm.benchmark.methods import METHODS
from hgkd_mm.benchmark.report import Recorder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'gpu_check.py'
SMALL_FLAGS = ('--device', 'cpu', '--small', '--minutes', '15')

# The tool, as if mmpretrain were not installed.
WITHOUT_MMPRETRAIN = f"""
import runpy, sys
sys.modules['mmpretrain'] = None
sys.argv[0] = {str(TOOL)!r}
runpy.run_path(sys.argv[0], run_name='__main__')
"""
# A stage that measures something and then never ends.
ENDLESS = """
import sys, time
from pathlib import Path
from hgkd_mm.benchmark.check import STAGES, Check, end_at, run_stages
from hgkd_mm.benchmark.report import Recorder

def endless(check, stage):
    stage.table('measured').rows.append({'a': 1})
    time.sleep(600)

STAGES.clear()
STAGES['first'] = lambda check, stage: stage.table('t').rows.append({'a': 1}), 1
STAGES['endless'] = endless, 1
out = Path(sys.argv[1])
scratch = out / 'scratch'
scratch.mkdir()
recorder, end = Recorder(out, {'device': 'none'}), time.monotonic() + 2
end_at(end, 0.033, recorder, scratch)
run_stages(list(STAGES), recorder, Check.small(scratch), end)
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def results(out: Path) -> dict:
    return json.loads((out / 'gpu_check.json').read_text())


def test_all_stages_run_in_small(tmp_path: Path) -> None:
    done = python(str(TOOL), *SMALL_FLAGS, '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    written = results(tmp_path)
    assert written['machine'].keys() >= {'device', 'torch', 'timm', 'cores', 'date', 'commit'}
    assert list(written['stages']) == list(STAGES)
    for name, stage in written['stages'].items():
        assert (stage['status'], stage['broken']) == ('ran', []), name
        assert stage['seconds'] > 0
        assert all(table['rows'] for table in stage['tables']), name
        assert f'## {name}: ran' in done.stdout
        assert f'## {name}: ran' in (tmp_path / 'gpu_check.md').read_text()

    first = {name: stage['tables'][0]['rows'] for name, stage in written['stages'].items()}
    for row in first['parity']:
        assert 0 < row['float64'] < 1e-10 and row['float64, masked_dense'] == 0
    kinds = [row['step'] for row in first['encoder'] if row['network'] == 'resnet18']
    assert kinds == ['dense', 'mmpretrain sparse', 'tiles', 'dense', 'tiles', 'dense', GRAPH]
    for row in first['methods']:
        assert row[row['chosen']] >= row[row['fastest']] == min(row[m] for m in METHODS) > 0
    assert [row['step'] for row in first['profile']] == ['tiles', 'dense']
    costly = written['stages']['profile']['tables'][1]['rows']
    assert 'aten::mkldnn_convolution' in [row['kernel'] for row in costly]
    times = [row['ms'] for row in costly]
    assert times == sorted(times, reverse=True)
    whole, parts = (table['rows'] for table in written['stages']['step']['tables'])
    for row, part in zip(whole, parts, strict=True):
        assert row['images/s'] > 0 and row['step'] == part['step']
        assert all(part[name] > 0 for name in ('student', 'decoder', 'teacher', 'loss'))
    (trained,) = first['training']
    assert len(trained['seconds']) == Check.small(tmp_path).limits['steps']
    assert all(0 <= w < s for w, s in zip(trained['waiting'], trained['seconds'], strict=True))


def test_without_mmpretrain_only_what_needs_it_is_left_out(tmp_path: Path) -> None:
    stages = ('--stages', 'methods', 'step', 'training')
    done = python('-c', WITHOUT_MMPRETRAIN, *SMALL_FLAGS, *stages, '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    found = results(tmp_path)['stages']
    status = {name: stage['status'] for name, stage in found.items()}
    assert status == {'methods': 'ran', 'step': 'left out', 'training': 'left out'}
    for name in ('step', 'training'):
        reason = found[name]['reason']
        assert 'mmpretrain' in reason and '--wheels DIR' in reason and reason in done.stdout


@pytest.fixture
def small() -> Check:
    return Check.small(Path())


def test_an_encoder_that_cannot_be_measured_is_named_and_leaves_the_others(
    small: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([torch.cuda.OutOfMemoryError('no memory left'), RuntimeError('out of order')])
    measured = []

    def fails(_: object, settings: object, kinds: tuple[str, ...]) -> None:
        measured.append(kinds)
        for error in errors:
            raise error

    monkeypatch.setitem(sys.modules, 'mmpretrain.models', None)
    monkeypatch.setattr(check, 'measure_encoder', fails)
    stage = Stage('encoder')
    small.encoder(stage)
    of_one = ('dense', 'masked_dense', 'tiles'), ('dense', 'tiles'), ('dense', GRAPH)
    assert measured == [*of_one, *of_one]
    first = 'resnet18, batch 2, 64 px, mask ratio {}, float32, tiles'
    missing, memory = stage.notes
    assert 'masked_dense stands in' in missing
    assert first.format(0.6) in memory and 'no memory left' in memory
    assert stage.broken == [f'{first.format(0.75)}: RuntimeError: out of order']


def test_without_time_it_names_what_is_left_out(small: Check) -> None:
    stage = Stage('encoder', share_end=0.0)
    small.encoder(stage)
    assert stage.tables[0].rows == []
    assert any('mobilenetv2_050, batch 2, 64 px, mask ratio 0.75' in n for n in stage.notes)


def test_a_failing_stage_is_recorded_and_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Check, stage: Stage) -> None:
        stage.table('before').rows.append({'a': '1|2'})
        raise RuntimeError('out of order')

    def breaks(_: Check, stage: Stage) -> None:
        stage.broken.append('a bound')

    def leaves(_: Check, stage: Stage) -> None:
        raise ModuleNotFoundError('nothing here')

    def runs(_: Check, stage: Stage) -> None:
        # What the others left of their shares is the last one's.
        assert stage.share_end - time.monotonic() == pytest.approx(100, abs=10)
        stage.table('after').rows.append({'a': 3})

    stages = {'fails': (fails, 1), 'breaks': (breaks, 1), 'leaves': (leaves, 2), 'runs': (runs, 6)}
    monkeypatch.setattr(check, 'STAGES', stages)
    recorder = Recorder(tmp_path, {'device': 'none'})
    end = time.monotonic() + 100 + check.RESERVE
    run_stages(list(stages), recorder, Check.small(tmp_path), end)
    found = results(tmp_path)['stages']
    status = {name: (stage['status'], stage['reason']) for name, stage in found.items()}
    assert status == {
        'fails': ('failed', 'RuntimeError: out of order'),
        'breaks': ('failed', None),
        'leaves': ('left out', check.NEEDED.format('nothing here')),
        'runs': ('ran', None),
    }
    assert found['fails']['tables'][0]['rows'] == [{'a': '1|2'}]
    assert recorder.failed
    text = (tmp_path / 'gpu_check.md').read_text()
    assert '| 1\\|2 |' in text and '- a bound' in text


def test_the_deadline_ends_the_process_and_keeps_what_was_measured(tmp_path: Path) -> None:
    done = python('-c', ENDLESS, str(tmp_path))
    assert done.returncode == 3, done.stderr[-2000:]
    found = results(tmp_path)['stages']
    assert found['first']['status'] == 'ran'
    assert found['endless']['status'] == 'cut' and '--minutes' in found['endless']['reason']
    assert found['endless']['tables'][0]['rows'] == [{'a': 1}]
    assert found['endless']['seconds'] < 10
    assert '## endless: cut' in done.stdout
    assert not (tmp_path / 'scratch').exists()


def test_wheels_can_be_imported_here_and_in_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / 'carried-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('carried_for_a_test/__init__.py', 'VALUE = 7')
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('PYTHONPATH', 'before')
    unpack(tmp_path, tmp_path / 'site')
    assert __import__('carried_for_a_test').VALUE == 7
    assert os.environ['PYTHONPATH'] == f'{tmp_path / "site"}{os.pathsep}before'
