from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.tools import load_tool

from hgkd_mm.doctor import Section, examine, report
from hgkd_mm.utils import environment
from hgkd_mm.utils.environment import STACKS, read_pins

ROOT = Path(__file__).resolve().parents[2]
RUNS = [Section(title='Machine'), Section(title='What runs')]


@pytest.mark.parametrize('name', STACKS)
def test_pinned_versions_are_a_tested_stack(name: str) -> None:
    pins = read_pins(ROOT / name)
    assert set(pins) >= report.NOT_NEEDED_TO_RUN
    needed = {n: v for n, v in pins.items() if n not in report.NOT_NEEDED_TO_RUN}
    local = {**needed, 'torch': f'{pins["torch"]}+cu130'}
    lite = {('mmcv-lite' if n == 'mmcv' else n): v for n, v in needed.items()}
    mmcv = 'onedl-mmcv' if name == STACKS[0] else 'mmcv'
    for installed in (pins, needed, local, lite):
        section = report.packages(ROOT, installed)
        assert section.facts['tested stack'] == f'yes: {name}'
        assert section.facts[mmcv] == pins[mmcv]
        assert section.problems == section.notes == []


def test_another_version_is_a_note_and_a_missing_package_or_a_clash_a_problem() -> None:
    pins = read_pins(ROOT / STACKS[0])
    section = report.packages(ROOT, {**pins, 'torch': '2.4.0'})
    assert section.problems == []
    (note,) = section.notes
    assert 'torch 2.4.0' in note and pins['torch'] in note
    assert section.facts['tested stack'].startswith('no')

    installed = {n: v for n, v in pins.items() if n not in ('timm', 'numpy')}
    section = report.packages(ROOT, {**installed, 'mmsegmentation': '1.2.2'})
    missing, clash = sorted(section.problems, key=lambda text: 'timm' not in text)[::2]
    assert 'timm' in missing and 'mmsegmentation 1.2.2' in clash
    assert section.facts['numpy'] == 'not installed'


@pytest.mark.parametrize(
    ('code', 'ending'),
    [
        ('os.abort()', 'SIGABRT'),
        ("sys.exit('no such symbol')", '1: no such symbol'),
    ],
)
def test_a_probe_that_ends_the_process_is_named(code: str, ending: str, tmp_path: Path) -> None:
    module = tmp_path / 'hgkd_mm/doctor/probes.py'
    module.parent.mkdir(parents=True)
    for parent in ('hgkd_mm', 'hgkd_mm/doctor'):
        (tmp_path / parent / '__init__.py').touch()
    machine = json.dumps(asdict(Section(title='Machine', facts={'a': 'b'})))
    lines = [f"print('@section ' + {machine!r})", "print('@begin mmcv', flush=True)", code]
    module.write_text('\n'.join(['import os, sys', *lines]))
    found, runs = report.probe_apart(tmp_path)
    assert (found.title, found.facts) == ('Machine', {'a': 'b'})
    (problem,) = runs.problems
    assert problem.startswith('Mmcv ') and ending in problem
    assert '--rebuild-mmcv' in problem


def test_a_process_that_hangs(tmp_path: Path) -> None:
    (tmp_path / 'hgkd_mm/doctor').mkdir(parents=True)
    (tmp_path / 'hgkd_mm/__init__.py').write_text('import time; time.sleep(60)')
    (runs,) = report.probe_apart(tmp_path, timeout=1)
    assert runs.title == 'What runs' and ' 1 s' in runs.problems[0]


def test_sections_in_order_and_what_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, 'probe_apart', lambda root: RUNS)
    monkeypatch.setitem(sys.modules, 'hgkd_mm.doctor.config', None)
    sections = list(examine(root=ROOT, configs=['no.py']))
    assert [s.title for s in sections] == ['Packages', 'Machine', 'What runs', 'Config no.py']
    (problem,) = sections[-1].problems
    assert 'hgkd_mm.doctor.config' in problem


def test_commands_are_for_the_installed_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, 'probe_apart', lambda root: RUNS)
    monkeypatch.setattr(environment, 'installed_versions', lambda: {'mmcv-lite': '2.1.0'})
    monkeypatch.setattr(environment, 'has_ops', lambda: False)
    monkeypatch.setattr('hgkd_mm.utils.launch.has_ops', lambda: False)
    config = str(ROOT / 'configs/det/mask-rcnn_r50_fpn_1x_coco.py')
    packages, *_, detector = examine(root=ROOT, configs=[config])
    assert packages.problems
    assert all('`bash tools/setup_env.sh --stack openmmlab`' in p for p in packages.problems)
    (problem,) = detector.problems
    assert '`bash tools/setup_env.sh --stack openmmlab --ops`' in problem


def test_section_as_text() -> None:
    section = Section(
        title='T', facts={'a': '1', 'long': '2'}, problems=['Broken.'], notes=['Slow.']
    )
    assert section.text() == 'T\n  a     1\n  long  2\n  PROBLEM: Broken.\n  Note: Slow.'


def test_the_report_of_a_broken_machine_needs_no_package() -> None:
    code = "import sys, hgkd_mm.doctor; print({'torch', 'mmengine', 'numpy'} & set(sys.modules))"
    environ = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout == 'set()\n'


@pytest.mark.parametrize(('problems', 'status'), [([], 0), (['A.', 'B.'], 1)])
def test_tool(
    problems: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    tool = load_tool('doctor')
    asked = {}

    def examined(**arguments: object) -> list[Section]:
        asked.update(arguments)
        return [Section(title='Config a.py', problems=problems)]

    monkeypatch.setattr(tool, 'examine', examined)
    monkeypatch.setattr(sys, 'argv', ['doctor.py', 'a.py', '--build', '--cfg-options', 'x=1'])
    assert tool.main() == status
    assert asked == dict(root=ROOT, configs=['a.py'], options=['x=1'], build=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'Config a.py' and (not problems or '2 problem' in lines[-1])

    monkeypatch.setattr(sys, 'argv', ['doctor.py', '--cfg-options', 'x'])
    with pytest.raises(SystemExit):
        tool.main()
    assert "'x'" in capsys.readouterr().err
