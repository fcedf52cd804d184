from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hgkd_mm.utils.processor import cpu_has_bfloat16, read_processor, usable_cores

INTEL = 'processor : 0\nmodel name\t: ACME 9000\nflags\t\t: fpu avx2 {flags}\n'


@pytest.mark.parametrize(
    ('text', 'name', 'found'),
    [
        (
            INTEL.format(flags='avx512_bf16 amx_bf16'),
            'ACME 9000',
            ('amx_bf16', 'avx512_bf16'),
        ),
        (INTEL.format(flags='avx512f'), 'ACME 9000', ()),
        # a flag is a word
        (INTEL.format(flags='not_avx512_bf16'), 'ACME 9000', ()),
        ('model name\t: Neo\nFeatures\t: fp asimd bf16\n', 'Neo', ('bf16',)),
    ],
)
def test_what_linux_says(text: str, name: str, found: tuple[str, ...]) -> None:
    assert (read_processor(text).name, read_processor(text).bfloat16) == (name, found)


def test_a_system_that_says_nothing() -> None:
    assert read_processor('').name and read_processor('').bfloat16 == ()


def test_bfloat16_is_read_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'Features\t: fp bf16\n'
    monkeypatch.setattr('hgkd_mm.utils.processor.Path.is_file', lambda _: True)
    monkeypatch.setattr('hgkd_mm.utils.processor.Path.read_text', lambda _: text)
    assert cpu_has_bfloat16()


def test_cores_are_those_of_this_process() -> None:
    code = (
        'import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});'
        'from hgkd_mm.utils.processor import usable_cores;'
        "print(usable_cores(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '1 False\n'
    assert 1 <= usable_cores() <= os.cpu_count()
