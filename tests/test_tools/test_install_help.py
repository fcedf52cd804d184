from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers.tools import load_tool

install_help = load_tool('install_help')


@pytest.mark.parametrize(
    ('log', 'cause'),
    [
        ('ERROR: Could not install: [Errno 28] No space left on device', 'the disk is full'),
        ('ERROR: No matching distribution found for torch==2.11.0', 'could not be reached'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ("error: command '/usr/bin/g++' failed with exit code 1", 'C++17 compiler'),
        ('something else', 'the message is above'),
    ],
)
def test_logs_are_read(
    log: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'log').write_text(log)
    assert install_help.main('diagnose', str(tmp_path / 'log')) == 0
    assert cause in capsys.readouterr().out


def test_tested_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins = tmp_path / 'pins.txt'
    pins.write_text(f'pytest=={pytest.__version__}\n')
    assert install_help.main('tested', str(pins)) == 0
    pins.write_text('pytest==1.0\n')
    assert install_help.main('tested', str(pins)) == 1
    assert 'is installed, 1.0 was tested' in capsys.readouterr().out


def test_missing_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('CXX', 'clang++-99')
    missing = install_help.missing_to_compile()
    assert missing is not None
    assert missing.startswith('no C++ compiler was found (clang++-99 and g++ were tried)')


def test_missing_headers_are_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / 'g++'
    compiler.write_text('#!/bin/sh\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(install_help.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    missing = install_help.missing_to_compile()
    assert missing is not None
    assert f'{tmp_path}/Python.h does not exist' in missing
    assert f'python{sys.version_info.major}.{sys.version_info.minor}-dev' in missing

    (tmp_path / 'Python.h').touch()
    assert install_help.missing_to_compile() is None
