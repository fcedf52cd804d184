"""What tools/setup_env.sh refuses before it installs, and that a second run has nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def setup(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ['bash', 'tools/setup_env.sh', *arguments],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_python(path: Path, version: str) -> str:
    path.write_text(f'#!/bin/sh\necho {version}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--stack', 'paddle'], "--stack is 'default' or 'openmmlab', not 'paddle'."),
        (['--stack'], '--stack needs a name'),
        (['--fast'], "there is no option '--fast'."),
    ],
)
def test_bad_arguments(arguments: list[str], sentence: str) -> None:
    result = setup(*arguments)
    assert result.returncode == 1
    assert f'Set-up stopped: {sentence}' in result.stderr


def test_python_that_does_not_run(tmp_path: Path) -> None:
    result = setup(HGKD_VENV=str(tmp_path / 'venv'), HGKD_PYTHON=str(tmp_path / 'nothing'))
    assert result.returncode == 1
    assert 'does not run; give the path of a Python 3.11, 3.12, 3.10.' in result.stderr


def test_python_of_another_version(tmp_path: Path) -> None:
    python = fake_python(tmp_path / 'python', '3.12')
    venv = str(tmp_path / 'venv')
    result = setup('--stack', 'openmmlab', HGKD_VENV=venv, HGKD_PYTHON=python)
    assert result.returncode == 1
    assert f'{python} is Python 3.12; this stack runs on 3.11, 3.10.' in result.stderr


def test_no_python_at_all(tmp_path: Path) -> None:
    # only what the script needs before it looks for Python
    for tool in ('bash', 'cat', 'cut', 'dirname', 'grep'):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    result = setup(HGKD_VENV=str(tmp_path / 'venv'), HGKD_PYTHON='', PATH=str(tmp_path))
    assert result.returncode == 1
    assert 'no Python of version 3.11, 3.12, 3.10 was found. Install one' in result.stderr


def test_folder_that_is_no_environment(tmp_path: Path) -> None:
    result = setup(HGKD_VENV=str(tmp_path))
    assert result.returncode == 1
    assert f'{tmp_path} exists and is not a virtual environment' in result.stderr


def test_environment_of_another_python(tmp_path: Path) -> None:
    (tmp_path / 'bin').mkdir()
    fake_python(tmp_path / 'bin/python', '3.8')
    result = setup(HGKD_VENV=str(tmp_path))
    assert result.returncode == 1
    assert 'a Python that is 3.8; this stack runs on 3.11, 3.12, 3.10.' in result.stderr
    assert f"Remove it ('rm -rf {tmp_path}')" in result.stderr


# a Python that installs nothing: it writes down what it is asked, and says what $INSTALLED names
RECORDER = """#!/bin/bash
case "$*" in
  *sys.version_info*) echo 3.11 ;;
  *importlib.metadata*)
    for pair in $INSTALLED; do
      if [[ "$*" == *"('${pair%%==*}')"* ]]; then echo "${pair##*==}"; exit; fi
    done
    exit 1 ;;
  *) echo "$*" >>"$(dirname "$0")/asked" ;;
esac
if [[ -n "$BROKEN" && "$*" == *"$BROKEN"* ]]; then echo "fatal error: Python.h" >&2; exit 1; fi
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/python').write_text(RECORDER)
    (tmp_path / 'bin/python').chmod(0o755)
    return tmp_path


def asked(venv: Path) -> list[str]:
    log = venv / 'bin/asked'
    lines = log.read_text().splitlines()
    log.unlink()
    return [line.replace('-m pip --disable-pip-version-check --retries 2', 'pip') for line in lines]


def test_steps_in_order_and_nothing_the_second_time(venv: Path) -> None:
    result = setup(HGKD_VENV=str(venv), MAX_JOBS='3')
    assert result.returncode == 0, result.stderr
    assert 'mmcv, compiled by 3 processes (8 to 12 minutes' in result.stdout
    steps = [line for line in asked(venv) if line.startswith(('pip', '-W'))]
    assert len(steps) == 5
    assert steps[0].startswith('pip install pip>=23 -r requirements/common.txt ninja==')
    assert ' torch==2.11.0' in steps[0]
    assert 'onedl' not in steps[0]
    assert steps[1] == 'pip install --no-build-isolation --no-deps onedl-mmcv==2.3.6'
    assert steps[2].startswith('pip install --no-build-isolation --no-deps onedl-mmengine==')
    assert steps[3] == 'pip install --no-build-isolation --no-deps -e .'
    assert steps[4].startswith('-W ignore tools/check_env.py --requirements requirements.txt')

    again = setup(HGKD_VENV=str(venv))
    assert again.returncode == 0
    assert f'{venv} is up to date' in again.stdout
    assert asked(venv) == ['tools/check_env.py --quick --requirements requirements.txt']


def test_compiled_mmcv_is_kept_unless_asked_anew(venv: Path) -> None:
    compiled = {'HGKD_VENV': str(venv), 'INSTALLED': 'onedl-mmcv==2.3.6', 'MAX_JOBS': '1'}
    assert setup(**compiled).returncode == 0
    assert not [line for line in asked(venv) if 'onedl-mmcv==' in line]

    assert setup('--rebuild-mmcv', **compiled).returncode == 0
    options = '--no-build-isolation --no-deps --force-reinstall --no-cache-dir onedl-mmcv==2.3.6'
    assert f'pip install {options}' in asked(venv)


def test_package_of_the_other_stack_goes_with_what_it_damaged(venv: Path) -> None:
    result = setup(HGKD_VENV=str(venv), INSTALLED='onedl-mmcv==2.3.6 mmsegmentation==1.2.2')
    assert 'removing mmsegmentation: not of this stack' in result.stdout
    (removal,) = [line for line in asked(venv) if 'uninstall' in line]
    assert removal.startswith('pip uninstall -y mmsegmentation ')
    assert 'onedl-mmsegmentation' in removal
    assert 'onedl-mmcv' not in removal


def test_failed_step_says_why_and_is_done_again(venv: Path) -> None:
    result = setup(HGKD_VENV=str(venv), BROKEN='onedl-mmcv==')
    assert result.returncode == 1
    assert "Set-up stopped: 'mmcv, compiled by" in result.stderr
    assert 'fatal error: Python.h' in result.stderr
    assert f'The whole log is {venv}/setup.log.' in result.stderr
    assert f'-m hgkd_mm.utils.install_help diagnose {venv}/setup.log' in asked(venv)

    assert 'up to date' not in setup(HGKD_VENV=str(venv)).stdout
