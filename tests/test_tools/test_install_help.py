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
        (
            'WARNING: Retrying after connection broken by NewConnectionError\n'
            'ERROR: No matching distribution found for torch==2.11.0',
            'could not be reached',
        ),
        ('ERROR: No matching distribution found for torch==2.11.0', 'no file of torch==2.11.0'),
        ('x.cpp:1:10: fatal error: Python.h: No such file', 'headers of Python'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ("error: command '/usr/bin/g++' failed with exit code 1", 'C++17 compiler'),
        ('something else', 'the message is above'),
    ],
)
def test_logs_are_read(log: str, cause: str) -> None:
    sentence = install_help.diagnose(log)
    assert cause in sentence
    assert sentence.endswith('.')


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
