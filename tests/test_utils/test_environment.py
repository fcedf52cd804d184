from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch

from hgkd_mm.utils import environment
from hgkd_mm.utils.environment import (
    STACKS,
    attempt,
    check_versions,
    explain,
    for_stack,
    read_pins,
    stack_of,
)

ROOT = Path(__file__).resolve().parents[2]


def test_read_pins_follows_includes_and_drops_markers(tmp_path: Path) -> None:
    (tmp_path / 'common.txt').write_text(
        "# shared\nrich==1.0  # why\nspconv==2; python_version<'4'\n"
    )
    main = tmp_path / 'main.txt'
    main.write_text('-r common.txt\ntorch==2.11.0\n')
    assert read_pins(main) == {'rich': '1.0', 'torch': '2.11.0'}


def test_missing_requirements_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere.txt does not exist'):
        read_pins(tmp_path / 'nowhere.txt')


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements/openmmlab.txt'])
def test_both_stacks_pin_every_package_once(name: str) -> None:
    pins = read_pins(ROOT / name)
    fork = 'onedl-' if name == 'requirements.txt' else ''
    assert {'torch', 'torchvision', 'numpy', f'{fork}mmcv', f'{fork}mmengine'} <= set(pins)
    assert 'opencv-python' not in pins
    assert 'transformers' not in pins


def test_local_build_label_is_the_same_release() -> None:
    assert check_versions({'torch': '2.11.0'}, {'torch': '2.11.0+cu130'}) == []


@pytest.mark.parametrize(
    ('installed', 'sentence'),
    [
        ({}, 'torch is not installed, 2.11.0 was tested'),
        ({'torch': '2.4.0'}, 'torch 2.4.0 is installed, 2.11.0 was tested'),
    ],
)
def test_other_versions_are_named(installed: dict[str, str], sentence: str) -> None:
    (problem,) = check_versions({'torch': '2.11.0'}, installed)
    assert problem.startswith(sentence)
    assert 'bash tools/setup_env.sh' in problem


def test_package_installed_over_its_fork_is_found() -> None:
    installed = {'onedl-mmsegmentation': '1.4.2', 'mmsegmentation': '1.2.2'}
    (problem,) = check_versions({}, installed)
    assert problem.startswith('mmsegmentation 1.2.2 was installed over onedl-mmsegmentation 1.4.2')


def test_two_opencvs_are_found() -> None:
    (problem,) = check_versions({}, {'opencv-python': '5', 'opencv-python-headless': '4'})
    assert 'both installed' in problem


def test_mmcv_lite_stands_in_for_mmcv_of_its_version() -> None:
    assert check_versions({'mmcv': '2.1.0'}, {'mmcv-lite': '2.1.0'}) == []
    (other,) = check_versions({'mmcv': '2.1.0'}, {'mmcv-lite': '2.0.1'})
    assert other.startswith('mmcv 2.0.1 is installed, 2.1.0 was tested')
    (absent,) = check_versions({'onedl-mmcv': '2.3.6'}, {})
    assert absent.startswith('onedl-mmcv is not installed')


@pytest.mark.parametrize('whole', ['mmcv', 'onedl-mmcv'])
def test_two_mmcvs_are_found(whole: str) -> None:
    (problem,) = check_versions({}, {'mmcv-lite': '2.1.0', whole: '2.1.0'})
    assert problem.startswith(f'mmcv-lite and {whole} are both installed')


@pytest.mark.parametrize('ops', [True, False])
def test_what_needs_ops_is_tried_with_ops_only(ops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(environment, 'build_model', tried.append)
    monkeypatch.setattr(environment, 'run_nms', functools.partial(tried.append, 'nms'))
    assert environment.check_running(ops=ops) == []
    assert tried == (['nms', 'mmpretrain', 'mmseg', 'mmdet'] if ops else ['mmpretrain', 'mmseg'])


def test_a_model_is_built_by_its_file() -> None:
    environment.build_model('mmpretrain')


def test_one_problem_if_all_others_need_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    monkeypatch.setattr(environment, 'run_nms', broken)
    (problem,) = environment.check_running(ops=True)
    assert 'nms' in problem and 'bash tools/setup_env.sh --rebuild-mmcv' in problem


@pytest.mark.parametrize(
    ('error', 'cure'),
    [
        (RuntimeError('operator torchvision::nms does not exist'), 'different builds'),
        (ImportError('libGL.so.1: cannot open shared object file'), 'no libGL'),
        (ImportError('_ext.so: undefined symbol: _ZN3c10'), '--rebuild-mmcv'),
        (AssertionError('MMCV==2.2.0 is used but incompatible'), 'do not fit were mixed'),
        (ModuleNotFoundError("No module named 'mmseg'"), 'a package is missing'),
        (ImportError("cannot import name 'X' from 'transformers'"), 'an environment without'),
        (RuntimeError('CUDA error: no kernel image is available'), 'without code for this GPU'),
        (ValueError('anything else'), 'install the tested versions'),
    ],
)
def test_known_errors_get_their_cure(error: Exception, cure: str) -> None:
    sentence = explain('import mmcv.ops', error)
    assert sentence.startswith(f'import mmcv.ops failed ({type(error).__name__}: ')
    assert cure in sentence
    assert '\n' not in sentence


def test_what_an_import_prints_is_no_finding(capsys: pytest.CaptureFixture) -> None:
    def broken() -> None:
        print('Could not import a thing that nothing needs')
        raise ImportError('_ext.so: undefined symbol: _ZN3c10')

    assert attempt('import a', lambda: print('noise')) is None
    assert attempt('import b', broken) == explain(
        'import b', ImportError('_ext.so: undefined symbol: _ZN3c10')
    )
    assert capsys.readouterr().out == ''


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
def test_stack_by_its_mmcv(installed: dict[str, str], stack: str) -> None:
    assert stack_of(installed) == stack


def test_commands_for_the_second_stack() -> None:
    text = 'a: `bash tools/setup_env.sh`, b: `bash tools/setup_env.sh --ops`'
    assert for_stack(text, STACKS[0]) == text
    second = for_stack(text, ROOT / STACKS[1])
    assert second.count('bash tools/setup_env.sh --stack openmmlab') == 2
    assert second.endswith('openmmlab --ops`') and for_stack(second, STACKS[1]) == second


@pytest.mark.parametrize('compiled', [True, False])
def test_the_compiled_module_tells_and_mmcv_is_not_imported(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('raise RuntimeError("mmcv was imported")')
    if compiled:
        (tmp_path / 'mmcv/_ext.abi3.so').touch()
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.has_ops() is compiled


@pytest.mark.parametrize(
    ('installed', 'command'),
    [
        ('onedl-mmcv', 'bash tools/setup_env.sh --ops'),
        ('mmcv-lite', 'bash tools/setup_env.sh --stack openmmlab --ops'),
    ],
)
def test_missing_ops_are_a_sentence_with_the_command(
    installed: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, 'installed_versions', lambda: {installed: '2'})
    monkeypatch.setattr(environment, 'has_ops', lambda: True)
    environment.need_ops('A detector')
    monkeypatch.setattr(environment, 'has_ops', lambda: False)
    with pytest.raises(environment.MissingOpsError) as error:
        environment.need_ops('A detector')
    assert str(error.value).startswith("A detector needs mmcv's compiled ops, ")
    assert f'`{command}` compiles them' in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason='torch sees a GPU here')
def test_gpus_that_torch_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / 'nvidia-smi'
    command.write_text("#!/bin/sh\nprintf 'GPU 0: A (UUID: x)\\nGPU 1: B (UUID: y)\\n'\n")
    command.chmod(0o755)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    assert 'lists 2 GPU(s)' in environment.unseen_gpus()
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert environment.unseen_gpus() is None
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    command.write_text('#!/bin/sh\nexit 9\n')
    assert environment.unseen_gpus() is None
