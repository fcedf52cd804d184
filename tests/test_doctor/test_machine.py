from __future__ import annotations

from pathlib import Path

import pytest

from hgkd_mm.doctor import Section
from hgkd_mm.doctor.machine import (
    gpu_problem,
    look_at_disk,
    look_at_memory,
    machine,
    processor,
)
from hgkd_mm.utils.processor import usable_cores

CPUINFO = 'processor : 0\nmodel name\t: ACME 9000\nflags\t\t: fpu avx2 {flags}\n'


@pytest.mark.parametrize(
    ('flags', 'precision'),
    [
        ('avx512_bf16 amx_bf16', 'bfloat16 by amx_bf16, avx512_bf16'),
        ('avx512f', 'bfloat16 emulated only'),
    ],
)
def test_processor(flags: str, precision: str) -> None:
    expected = f'ACME 9000, {usable_cores()} cores for this process, {precision}'
    assert processor(CPUINFO.format(flags=flags)) == expected


def test_processor_without_cpuinfo() -> None:
    assert processor('').endswith('bfloat16 emulated only')


def test_memory_is_in_gigabytes() -> None:
    section = Section(title='m')
    look_at_memory(section, 'MemTotal: 8000000 kB\nMemAvailable: 1000000 kB\n', shared=None)
    assert section.facts == [('Memory', '8.2 GB, 1.0 GB of it available')]
    assert section.notes == []


@pytest.mark.parametrize(('free', 'notes'), [(64 * 2**20, 1), (8 * 2**30, 0)])
def test_little_shared_memory_is_told(free: float, notes: int) -> None:
    section = Section(title='m')
    look_at_memory(section, '', shared=free)
    assert len(section.notes) == notes
    assert all('0.07 GB free' in n and '--shm-size=8g' in n for n in section.notes)


@pytest.mark.parametrize(('free', 'problems'), [(5e8, 1), (5e10, 0)])
def test_full_disk(
    free: float, problems: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Usage:
        def __init__(self, path: Path) -> None:
            asked.append(path)
            self.free = free

    monkeypatch.setattr('hgkd_mm.doctor.machine.shutil.disk_usage', Usage)
    section = Section(title='m')
    look_at_disk(section, tmp_path / 'not' / 'made')
    assert asked == [tmp_path]
    assert len(section.problems) == problems
    assert all('0.50 GB are free' in p and '--work-dir DIR' in p for p in section.problems)


@pytest.mark.parametrize(
    ('drivers', 'visible', 'cuda', 'sentence'),
    [
        ([], None, '13.0', None),
        (['550.1'], '-1', '13.0', None),
        (['550.1'], '', '13.0', None),
        (['550.1'], None, None, 'is built for the CPU only; `bash tools/setup_env.sh`'),
        (['450.2', '450.2'], '0', '13.0', 'for CUDA 13.0, and the driver is 450.2. Update'),
    ],
)
def test_gpus_that_torch_does_not_see(
    drivers: list[str], visible: str | None, cuda: str | None, sentence: str | None
) -> None:
    problem = gpu_problem(drivers=drivers, visible=visible, cuda=cuda)
    if sentence is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(f'nvidia-smi lists {len(drivers)} GPU(s) and torch sees none')
        assert sentence in problem


def test_machine_names_what_a_report_needs(tmp_path: Path) -> None:
    facts = dict(machine(tmp_path).facts)
    assert facts['Python'].startswith('3.')
    assert {'System', 'Processor', f'Disk of {tmp_path.name}/', 'Processes talk by'} <= set(facts)
    assert 'gloo' in facts['Processes talk by']
    assert 'GPU' in facts or 'GPU 0' in facts


def test_section_as_text() -> None:
    section = Section(
        title='T', facts=[('a', '1'), ('long', '2')], problems=['Broken.'], notes=['Slow.']
    )
    assert section.text() == 'T\n  a     1\n  long  2\n  PROBLEM: Broken.\n  Note: Slow.'
