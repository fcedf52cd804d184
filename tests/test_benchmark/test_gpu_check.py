"""tools/gpu_check.py, on the CPU: that it runs, and that what was measured survives."""

import json
import os
import runpy
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hgkd_mm.benchmark.gpu import (
    SMALL,
    STAGES,
    Context,
    Findings,
    LeftOutError,
    Recorder,
    check,
    encoder,
    run_stages,
    synchronisations,
    unpack,
)
from hgkd_mm.benchmark.gpu.parity import FLOOR, largest_error
from hgkd_mm.benchmark.gpu.profile import short_name
from hgkd_mm.benchmark.gpu.utilisation import parse_reading
from hgkd_mm.benchmark.methods import METHODS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'gpu_check.py'
SMALL_FLAGS = ('--device', 'cpu', '--small', '--minutes', '15')

# Run before the tool: as if mmpretrain were not installed.
WITHOUT_MMPRETRAIN = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'mmpretrain':
            raise ModuleNotFoundError(f'No module named {{name!r}}')
sys.meta_path.insert(0, Refuse())
sys.argv[0] = {str(TOOL)!r}
runpy.run_path(sys.argv[0], run_name='__main__')
"""
# A stage that measures something and then never ends.
ENDLESS = """
import sys, time
from pathlib import Path
from hgkd_mm.benchmark.gpu import STAGES, SMALL, Recorder, end_at, run_stages

def endless(context, found):
    found.table('measured', ('a',)).rows.append(('1',))
    time.sleep(600)

STAGES.clear()
STAGES['first'] = lambda context, found: found.table('t', ('a',)).rows.append(('1',)), 1
STAGES['endless'] = endless, 1
out = Path(sys.argv[1])
scratch = out / 'scratch'
scratch.mkdir()
recorder, end = Recorder(out, {'device': 'none'}), time.monotonic() + 2
end_at(end, 0.033, recorder, scratch)
run_stages(list(STAGES), recorder, device='cpu', sizes=SMALL, scratch=scratch, end=end)
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def results(out: Path) -> dict:
    return json.loads((out / 'gpu_check.json').read_text())


def context(tmp_path: Path, seconds: float = 60.0) -> Context:
    end = time.monotonic() + seconds
    return Context(device='cpu', sizes=SMALL, scratch=tmp_path, stage_end=end, end=end)


def test_all_stages_run_in_small(tmp_path: Path) -> None:
    done = python(str(TOOL), *SMALL_FLAGS, '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    written = results(tmp_path)
    assert written['machine'].keys() >= {'device', 'driver', 'torch', 'cuda', 'cudnn', 'date'}
    assert list(written['stages']) == list(STAGES)
    for name, stage in written['stages'].items():
        assert (stage['status'], stage['broken']) == ('ran', []), name
        assert stage['seconds'] > 0
        assert stage['tables'], name
        for table in stage['tables']:
            assert {len(row) for row in table['rows']} == {len(table['columns'])}, table['title']
            assert table['records']
        assert f'## {name}: ran' in done.stdout
        assert f'## {name}: ran' in (tmp_path / 'gpu_check.md').read_text()

    first = {name: stage['tables'][0]['records'] for name, stage in written['stages'].items()}
    exact = [record['torch.float64'] for record in first['parity']]
    assert all(0 < e['tiles'] < 1e-10 and e['masked_dense'] == 0 for e in exact)
    names = [record['name'] for record in first['encoder'] if record['network'] == 'resnet18']
    assert names == ['dense', 'tiles', 'mmpretrain sparse', 'dense', 'tiles']
    for record in first['methods']:
        assert record[record['fastest']] == min(record[m] for m in METHODS if m in record)
    assert [record['step'] for record in first['profile']] == ['tiles', 'dense']
    assert all(record['images_per_second'] > 0 for record in first['step'])
    (trained,) = first['training']
    assert len(trained['seconds']) == SMALL.train_steps
    assert all(0 <= w < s for w, s in zip(trained['waiting'], trained['seconds'], strict=True))


def test_without_mmpretrain_only_what_needs_it_is_left_out(tmp_path: Path) -> None:
    stages = ('--stages', 'methods', 'step', 'training')
    done = python('-c', WITHOUT_MMPRETRAIN, *SMALL_FLAGS, *stages, '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    found = results(tmp_path)['stages']
    assert {name: stage['status'] for name, stage in found.items()} == {
        'methods': 'ran',
        'step': 'left out',
        'training': 'left out',
    }
    for name in ('step', 'training'):
        reason = found[name]['reason']
        assert "No module named 'mmpretrain'" in reason and '--wheels DIR' in reason
        assert reason in done.stdout


def test_masked_dense_stands_in_for_mmpretrains_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise LeftOutError('mmpretrain is missing.')

    monkeypatch.setattr(encoder, 'import_openmmlab', missing)
    monkeypatch.setattr(encoder, 'MASK_RATIOS', (0.5,))
    found = Findings()
    sizes = replace(SMALL, encoder={'mobilenetv2_050': 'mobilenet_v2'})
    encoder.encoder(replace(context(tmp_path), sizes=sizes), found)
    (table,) = found.tables
    assert [r['name'] for r in table.records] == ['dense', 'masked_dense', 'tiles']
    assert 'masked_dense stands in for mmpretrain sparse: mmpretrain is missing.' in found.notes


def test_a_network_that_cannot_be_measured_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([torch.cuda.OutOfMemoryError('no memory left'), RuntimeError('out of order')])

    def measured(context: Context, steps: dict) -> list:
        raise next(errors)

    monkeypatch.setattr(encoder, '_measured', measured)
    monkeypatch.setattr(encoder, 'MASK_RATIOS', (0.5,))
    found = Findings()
    encoder.encoder(context(tmp_path), found)
    first, second = (f'{name}, batch 2, float32, mask ratio 0.5' for name in SMALL.encoder)
    assert f'Not measured for want of memory: {first} (no memory left).' in found.notes
    assert found.broken == [f'{second}: RuntimeError: out of order']


def test_a_stage_without_time_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = Findings()
    encoder.encoder(context(tmp_path, seconds=0), found)
    assert found.tables[0].rows == []
    assert any('mobilenetv2_050, batch 2, float32, mask ratio 0.75' in note for note in found.notes)


def test_a_failing_stage_is_recorded_and_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(context: Context, found: Findings) -> None:
        found.table('before', ('a',)).rows.append(('1|2',))
        raise RuntimeError('out of order')

    def breaks(context: Context, found: Findings) -> None:
        found.broken.append('a bound')

    def leaves(context: Context, found: Findings) -> None:
        raise LeftOutError('nothing here')

    shares = {}

    def runs(context: Context, found: Findings) -> None:
        shares['last'] = context.stage_left
        found.table('after', ('a',)).rows.append(('3',))

    stages = {'fails': (fails, 1), 'breaks': (breaks, 1), 'leaves': (leaves, 2), 'runs': (runs, 6)}
    monkeypatch.setattr(check, 'STAGES', stages)
    recorder = Recorder(tmp_path, {'device': 'none'})
    end = time.monotonic() + 100 + check.RESERVE
    run_stages(list(stages), recorder, device='cpu', sizes=SMALL, scratch=tmp_path, end=end)
    found = results(tmp_path)['stages']
    status = {name: (stage['status'], stage['reason']) for name, stage in found.items()}
    assert status == {
        'fails': ('failed', 'RuntimeError: out of order'),
        'breaks': ('failed', None),
        'leaves': ('left out', 'nothing here'),
        'runs': ('ran', None),
    }
    assert found['fails']['tables'][0]['rows'] == [['1|2']]
    assert recorder.failed
    text = (tmp_path / 'gpu_check.md').read_text()
    assert '| 1\\|2 |' in text and '- a bound' in text
    # What the others left of their shares is the last one's.
    assert shares['last'] == pytest.approx(100, abs=10)


def test_the_deadline_ends_the_process_and_keeps_what_was_measured(tmp_path: Path) -> None:
    done = python('-c', ENDLESS, str(tmp_path))
    assert done.returncode == 3, done.stderr[-2000:]
    found = results(tmp_path)['stages']
    assert found['first']['status'] == 'ran'
    assert found['endless']['status'] == 'cut' and '--minutes' in found['endless']['reason']
    assert found['endless']['tables'][0]['rows'] == [['1']]
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


@pytest.mark.parametrize(
    ('flags', 'told'),
    [
        (('--minutes', '0'), '--minutes takes a number above 0, not 0.'),
        (('--wheels', 'docs'), '--wheels docs holds no wheel'),
        (('--device', 'cuda:99'), "There is no device 'cuda:99' here"),
        (('--stages', 'all'), "invalid choice: 'all'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    flags: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    done = python(str(TOOL), *flags, '--out', str(tmp_path / 'out'))
    assert done.returncode in (1, 2) and told in done.stderr
    assert not (tmp_path / 'out').exists()


def test_the_tool_knows_all_stages() -> None:
    assert runpy.run_path(str(TOOL))['STAGE_NAMES'] == tuple(STAGES)


def test_errors_are_relative_to_each_tensor_but_for_those_that_should_vanish() -> None:
    wanted = [torch.tensor([3.0, 4.0]), torch.tensor([1e-9])]
    assert largest_error([torch.tensor([3.0, 4.5]), wanted[1]], wanted) == pytest.approx(0.1)
    noise = largest_error([wanted[0], torch.tensor([2e-5])], wanted)
    assert noise == pytest.approx(2e-5 / (5 * FLOOR), rel=1e-3)
    assert not largest_error([wanted[0], torch.tensor([float('nan')])], wanted) <= 1


def test_waits_are_told_by_the_line_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)
    with synchronisations.counted() as waits:
        for _ in range(2):
            torch.overrides.warnings.warn(synchronisations.MESSAGE, stacklevel=1)
        torch.overrides.warnings.warn('something else', stacklevel=1)
    (line,) = waits
    assert waits[line] == 2
    assert 'test_gpu_check.py:' in line
    assert line.endswith(' test_waits_are_told_by_the_line_that_waits')
    assert modes == ['warn', 'default']


def test_names_of_kernels_are_shortened() -> None:
    name = 'void at::native::(anonymous namespace)::gather_kernel<float, at::native::Sum>(float*)'
    assert short_name(name) == 'gather_kernel<float, Sum>(float*)'
    assert short_name('a' * 100, most=10) == 'a' * 9 + '…'


def test_readings_that_are_not_told_are_none() -> None:
    assert parse_reading('87, 40312') == (87.0, 40312.0)
    assert parse_reading('[N/A], 40312') is None
    assert parse_reading('No devices were found') is None
