from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hgkd_mm.utils.process import cpu_has_bfloat16, processor_name, usable_cores


@pytest.mark.parametrize(
    ('text', 'name', 'bfloat16'),
    [
        ('processor : 0\nmodel name\t: ACME 9000\nflags\t\t: fpu avx512_bf16\n', 'ACME 9000', True),
        # a flag is a word
        ('model name\t: ACME 9000\nflags\t\t: fpu not_avx512_bf16\n', 'ACME 9000', False),
        ('model name\t: Neo\nFeatures\t: fp asimd bf16\n', 'Neo', True),
    ],
)
def test_what_linux_says(
    text: str, name: str, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, 'is_file', lambda _: True)
    monkeypatch.setattr(Path, 'read_text', lambda _: text)
    assert (processor_name(), cpu_has_bfloat16()) == (name, bfloat16)


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, 'is_file', lambda _: False)
    assert processor_name() and not cpu_has_bfloat16()


def test_cores_are_those_of_this_process() -> None:
    code = (
        'import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});'
        'from hgkd_mm.utils.process import usable_cores;'
        "print(usable_cores(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '1 False\n'
    assert 1 <= usable_cores() <= os.cpu_count()
