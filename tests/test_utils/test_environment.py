from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hgkd_mm.utils import environment
from hgkd_mm.utils.environment import check_versions, read_pins, setup_command, stack_of

ROOT = Path(__file__).resolve().parents[2]


def test_read_pins_follows_includes_and_drops_markers(tmp_path: Path) -> None:
    (tmp_path / 'common.txt').write_text(
        "# shared\nrich==1.0  # why\nspconv==2; python_version<'4'\n"
    )
    main = tmp_path / 'main.txt'
    main.write_text('-r common.txt\ntorch==2.11.0\n')
    assert read_pins(main) == {'rich': '1.0', 'torch': '2.11.0'}


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements/openmmlab.txt'])
def test_both_stacks_pin_every_package_once(name: str) -> None:
    pins = read_pins(ROOT / name)
    fork = 'onedl-' if name == 'requirements.txt' else ''
    assert {'torch', 'torchvision', 'numpy', f'{fork}mmcv', f'{fork}mmengine'} <= set(pins)
    assert 'opencv-python' not in pins
    assert 'transformers' not in pins


@pytest.mark.parametrize(
    ('pins', 'installed', 'broken', 'untested'),
    [
        # a local label names a build of the same release
        ({'torch': '2.11.0'}, {'torch': '2.11.0+cu130'}, None, None),
        ({'torch': '2.11.0'}, {}, 'torch 2.11.0 is not installed', None),
        ({'torch': '2.11.0'}, {'torch': '2.4.0'}, None, 'torch 2.4.0 is installed, 2.11.0 was'),
        # mmcv-lite stands in for mmcv of its version
        ({'mmcv': '2.1.0'}, {'mmcv-lite': '2.1.0'}, None, None),
        ({'mmcv': '2.1.0'}, {'mmcv-lite': '2.0.1'}, None, 'mmcv 2.0.1 is installed, 2.1.0 was'),
        ({}, {'mmcv-lite': '2', 'mmcv': '2'}, 'mmcv-lite 2 and mmcv 2 are both installed', None),
        ({}, {'mmcv-lite': '2', 'onedl-mmcv': '3'}, 'mmcv-lite 2 and onedl-mmcv 3 are', None),
        ({}, {'onedl-mmdetection': '3', 'mmdet': '2'}, 'mmdet 2 and onedl-mmdetection 3 are', None),
        ({}, {'opencv-python': '5', 'opencv-python-headless': '4'}, 'opencv-python 5 and', None),
    ],
)
def test_versions(
    pins: dict[str, str], installed: dict[str, str], broken: str | None, untested: str | None
) -> None:
    for found, expected in zip(check_versions(pins, installed), (broken, untested), strict=True):
        assert len(found) == (expected is not None)
        assert all(s.startswith(expected) and 'bash tools/setup_env.sh' in s for s in found)


@pytest.mark.parametrize(
    ('installed', 'stack'),
    [
        ({'onedl-mmcv': '2.3.6'}, 'requirements.txt'),
        ({}, 'requirements.txt'),
        ({'mmcv': '2.1.0'}, 'requirements/openmmlab.txt'),
        ({'mmcv-lite': '2.1.0'}, 'requirements/openmmlab.txt'),
        # one installed over the other: the stack is the fork's, and check_versions says the rest
        ({'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'}, 'requirements.txt'),
    ],
)
def test_stack_by_its_mmcv(
    installed: dict[str, str], stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack_of(installed) == stack
    monkeypatch.setattr(environment, 'installed_versions', lambda: installed)
    chosen = '' if stack == 'requirements.txt' else ' --stack openmmlab'
    assert setup_command('--ops') == f'bash tools/setup_env.sh{chosen} --ops'


@pytest.mark.parametrize('compiled', [True, False])
def test_the_compiled_module_is_found_without_importing_mmcv(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('raise RuntimeError("mmcv was imported")')
    if compiled:
        (tmp_path / 'mmcv/_ext.abi3.so').touch()
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.has_ops() is compiled
    if compiled:
        environment.need_ops('A detector')
        return
    with pytest.raises(environment.MissingOpsError) as error:
        environment.need_ops('A detector')
    assert str(error.value).startswith("A detector needs mmcv's compiled ops, ")
    assert '--ops` compiles them' in str(error.value)


@pytest.mark.parametrize(
    ('mmcv', 'package', 'needed'),
    [
        ('onedl-mmcv', 'mmpretrain', False),
        ('onedl-mmcv', 'mmseg', False),
        ('onedl-mmcv', 'mmdet', True),
        ('mmcv-lite', 'mmpretrain', False),
        ('mmcv-lite', 'mmseg', True),
        ('mmcv-lite', 'mmdet', True),
    ],
)
def test_which_packages_use_ops(
    monkeypatch: pytest.MonkeyPatch, mmcv: str, package: str, needed: bool
) -> None:
    monkeypatch.setattr(environment, 'installed_versions', lambda: {mmcv: '2.1.0'})
    assert environment.uses_ops(package) is needed
