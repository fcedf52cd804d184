from __future__ import annotations

from pathlib import Path

import pytest

from hgkd_mm.doctor import Section, apart


def package(folder: Path, code: str) -> Path:
    """A repository whose probes do what a test wants."""
    module = folder / 'hgkd_mm/doctor/apart.py'
    module.parent.mkdir(parents=True)
    for parent in ('hgkd_mm', 'hgkd_mm/doctor'):
        (folder / parent / '__init__.py').touch()
    module.write_text(f"import os, sys, time\nprint('@begin mmcv', flush=True)\n{code}\n")
    return folder


@pytest.mark.parametrize(
    ('code', 'ending'),
    [
        ('os.abort()', 'Mmcv ended the process (SIGABRT); what comes after it was not tried.'),
        ("sys.exit('no such symbol')", 'Mmcv ended the process (status 1: no such symbol);'),
    ],
)
def test_process_that_ends(code: str, ending: str, tmp_path: Path) -> None:
    (problem,) = apart.probes_apart(package(tmp_path, code)).problems
    assert problem.startswith(ending)
    assert '`bash tools/setup_env.sh --rebuild-mmcv`' in problem


def test_process_that_hangs(tmp_path: Path) -> None:
    section = apart.probes_apart(package(tmp_path, 'time.sleep(60)'), timeout=1)
    assert section.problems[0].startswith('Mmcv did not come back in 1 s;')


def test_what_is_printed_is_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found = Section(title='What runs', facts=[('a', 'b')], problems=['P.'], notes=['N.'])

    def probes(begin) -> Section:
        begin('something')
        print('noise without an end', end='')
        return found

    monkeypatch.setattr(apart, 'probes', probes)
    apart.main()
    read = apart.read(capsys.readouterr().out, 'ended')
    assert read == found
