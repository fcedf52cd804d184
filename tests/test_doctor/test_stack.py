from __future__ import annotations

from pathlib import Path

import pytest

from hgkd_mm.doctor.stack import NOT_NEEDED_TO_RUN, stack
from hgkd_mm.utils.env_check import STACKS, read_pins

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('name', STACKS)
def test_pinned_versions_are_a_tested_stack(name: str) -> None:
    section = stack(ROOT, read_pins(ROOT / name))
    assert section.facts[-1] == ('tested stack', f'yes: {name}')
    assert section.problems == section.notes == []
    mmcv = 'onedl-mmcv' if name == STACKS[0] else 'mmcv'
    assert dict(section.facts)[mmcv] == read_pins(ROOT / name)[mmcv]


def test_mmcv_lite_is_the_second_stacks_mmcv_without_ops() -> None:
    pins = read_pins(ROOT / STACKS[1])
    installed = {name: version for name, version in pins.items() if name != 'mmcv'}
    section = stack(ROOT, {**installed, 'mmcv-lite': pins['mmcv']})
    assert section.facts[-1] == ('tested stack', f'yes: {STACKS[1]}')
    assert section.problems == section.notes == []


def test_test_tools_are_not_needed_to_run() -> None:
    pins = read_pins(ROOT / STACKS[0])
    assert set(pins) >= NOT_NEEDED_TO_RUN
    section = stack(ROOT, {n: v for n, v in pins.items() if n not in NOT_NEEDED_TO_RUN})
    assert section.problems == section.notes == []


def test_other_version_is_a_note_and_no_tested_stack() -> None:
    section = stack(ROOT, {**read_pins(ROOT / STACKS[0]), 'torch': '2.4.0'})
    assert section.problems == []
    (note,) = section.notes
    assert 'torch 2.4.0, not 2.11.0' in note
    assert '`bash tools/setup_env.sh`' in note
    assert section.facts[-1] == ('tested stack', 'no; the nearest is requirements.txt')


def test_local_build_label_is_the_same_release() -> None:
    pins = read_pins(ROOT / STACKS[0])
    section = stack(ROOT, {**pins, 'torch': f'{pins["torch"]}+cu130'})
    assert section.facts[-1] == ('tested stack', 'yes: requirements.txt')


def test_missing_package_and_clash_are_problems() -> None:
    pins = read_pins(ROOT / STACKS[0])
    installed = {n: v for n, v in pins.items() if n != 'timm'}
    section = stack(ROOT, {**installed, 'mmsegmentation': '1.2.2'})
    missing, clash = section.problems
    assert missing.startswith('timm is not installed')
    assert clash.startswith('mmsegmentation 1.2.2 was installed over onedl-mmsegmentation')
