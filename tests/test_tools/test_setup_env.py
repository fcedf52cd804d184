"""What tools/setup_env.sh refuses, its steps, and that a second run has nothing to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def setup(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    times = f'{variables["HGKD_VENV"]}/times.json' if 'HGKD_VENV' in variables else ''
    return subprocess.run(
        ['bash', 'tools/setup_env.sh', *arguments],
        env={**os.environ, 'HGKD_SETUP_TIMES': times, **variables},
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


@pytest.mark.parametrize(
    ('stack', 'python', 'sentence'),
    [
        ('default', None, 'does not run; give the path of a Python 3.11, 3.12, 3.13, 3.10.'),
        ('openmmlab', '3.12', 'is Python 3.12; this stack runs on 3.11, 3.10.'),
    ],
)
def test_python_that_does_not_fit(
    stack: str, python: str | None, sentence: str, tmp_path: Path
) -> None:
    given = tmp_path / 'python'
    if python:
        fake_python(given, python)
    venv = str(tmp_path / 'venv')
    result = setup('--stack', stack, HGKD_VENV=venv, HGKD_PYTHON=str(given))
    assert result.returncode == 1
    assert f'{given} {sentence}' in result.stderr


def test_no_python_at_all(tmp_path: Path) -> None:
    # only what the script needs before it looks for Python
    for tool in ('bash', 'cat', 'cut', 'dirname', 'grep'):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    result = setup(HGKD_VENV=str(tmp_path / 'venv'), HGKD_PYTHON='', PATH=str(tmp_path))
    assert result.returncode == 1
    assert 'no Python of version 3.11, 3.12, 3.13, 3.10 was found. Install one' in result.stderr


def test_folder_that_is_no_environment_or_of_another_python(tmp_path: Path) -> None:
    result = setup(HGKD_VENV=str(tmp_path))
    assert result.returncode == 1
    assert f'{tmp_path} exists and is not a virtual environment' in result.stderr
    (tmp_path / 'bin').mkdir()
    fake_python(tmp_path / 'bin/python', '3.8')
    result = setup(HGKD_VENV=str(tmp_path))
    assert result.returncode == 1
    assert 'a Python that is 3.8; this stack runs on 3.11, 3.12, 3.13, 3.10.' in result.stderr
    assert f"Remove it ('rm -rf {tmp_path}')" in result.stderr


# A Python that installs nothing: it writes down what it is asked, and says what $INSTALLED names
# and what pip installed since. mmcv's ops are a file; compiling makes it, unless pip takes from its
# cache what $CACHED names.
RECORDER = """#!/bin/bash
here="$(dirname "$0")"
case "$*" in
  *sys.version_info*) echo 3.11 ;;
  *importlib.metadata*)
    for pair in $INSTALLED ${PIP-pip==25.1} $(cat "$here/installed" 2>/dev/null); do
      if [[ "$*" == *"('${pair%%==*}')"* ]]; then echo "${pair##*==}"; exit; fi
    done
    exit 1 ;;
  *has-ops*) test -e "$here/ops" || exit 1 ;;
  *'import mmcv.ops'*) test -e "$here/ops" || exit 1 ;;
  *quickstart.py*) echo "tools/quickstart.py, times: $HGKD_SETUP_TIMES" >>"$here/asked" ;;
  *) echo "$*" >>"$here/asked" ;;
esac
if [[ "$*" == *'cache remove'* ]]; then touch "$here/uncached"; fi
if [[ -e "$here/uncached" ]]; then CACHED=; fi
case "$CACHED $*" in
  ' '*--force-reinstall*mmcv==* | *--force-reinstall*--no-cache-dir*mmcv==*) touch "$here/ops" ;;
esac
if [[ "$*" =~ ' '(install|wheel)' '.*mmcv.*== ]]; then echo "${@: -1}" >>"$here/installed"; fi
if [[ "$*" == *'uninstall -y '* ]]; then sed -i "/^${@: -1}==/d" "$here/installed"; fi
if [[ -n "$BROKEN" && "$*" == *"$BROKEN"* ]]; then echo "fatal error: Python.h" >&2; exit 1; fi
"""
PURE = 'pip wheel --no-deps --no-cache-dir --wheel-dir'
COMPILED = 'pip install --no-build-isolation --no-deps --force-reinstall'


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/python').write_text(RECORDER)
    (tmp_path / 'bin/python').chmod(0o755)
    return tmp_path


def asked(venv: Path) -> list[str]:
    """What of pip and of the check was asked for since the last call."""
    log = venv / 'bin/asked'
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    lines = [
        line.replace('-m pip --disable-pip-version-check --retries 2', 'pip') for line in lines
    ]
    return [line for line in lines if line.startswith(('pip', 'tools'))]


def times(venv: Path) -> dict[str, int]:
    return json.loads((venv / 'times.json').read_text())


TESTED = 'tools/install_help.py tested requirements.txt'
CHECK = 'tools/doctor.py'


def test_steps_in_order_and_nothing_the_second_time(venv: Path) -> None:
    result = setup(HGKD_VENV=str(venv), PYTHONDONTWRITEBYTECODE='')
    assert result.returncode == 0, result.stderr
    # Two pips at once, so that their lines come in any order.
    *together, install, check = asked(venv)
    packages, mmcv, mm_packages = sorted(together)
    assert packages.startswith('pip install --no-compile -r requirements/common.txt ninja==')
    assert ' torch==2.11.0' in packages
    assert 'onedl' not in packages
    built = f'{venv}/built'
    assert mm_packages.startswith(f'pip wheel --no-deps --wheel-dir {built} onedl-mmengine==')
    assert 'mmcv' not in mm_packages
    assert mmcv == f'{PURE} {built} onedl-mmcv==2.3.6'
    wheels = f'{built}/*.whl'
    assert install == f'pip install --no-compile --no-build-isolation --no-deps {wheels} -e .'
    assert check == CHECK
    assert set(times(venv)) == {'download_s', 'install_s', 'mmcv_s', 'total_s'}

    again = setup(HGKD_VENV=str(venv))
    assert again.returncode == 0
    assert f'{venv} is up to date' in again.stdout
    assert asked(venv) == [TESTED]
    assert set(times(venv).values()) == {0}


def test_old_pip_is_replaced_first_and_compiles_where_python_keeps_no_bytecode(venv: Path) -> None:
    variables = dict(PYTHONDONTWRITEBYTECODE='1', PIP='pip==22.3')
    assert setup(HGKD_VENV=str(venv), **variables).returncode == 0
    first, *steps = asked(venv)
    assert first == 'pip install pip>=23'
    assert any(line.startswith('pip install --compile -r ') for line in steps)


def test_downloads_end_where_pip_begins_to_install(venv: Path) -> None:
    python = venv / 'bin/python'
    pip = 'sleep 1.2; echo "Installing collected packages: a, torch, b"'
    python.write_text(f'{RECORDER}if [[ "$*" == *"-r requirements"* ]]; then {pip}; fi\n')
    assert setup(HGKD_VENV=str(venv)).returncode == 0
    found = times(venv)
    assert found['download_s'] >= 1
    assert found['total_s'] == found['download_s'] + found['install_s'] + found['mmcv_s']


@pytest.mark.parametrize('stack', ['default', 'openmmlab'])
def test_from_no_ops_to_ops_mmcv_alone_is_compiled(venv: Path, stack: str) -> None:
    chosen = ['--stack', stack]
    assert setup(*chosen, HGKD_VENV=str(venv)).returncode == 0
    pure, whole = {
        'default': ('onedl-mmcv==2.3.6', 'onedl-mmcv==2.3.6'),
        'openmmlab': ('mmcv-lite==2.1.0', 'mmcv==2.1.0'),
    }[stack]
    assert f'{PURE} {venv}/built {pure}' in asked(venv)

    result = setup(*chosen, '--ops', HGKD_VENV=str(venv), MAX_JOBS='3')
    assert result.returncode == 0, result.stderr
    assert 'mmcv, compiled by 3 processes (8 to 12 minutes' in result.stdout
    steps = [line for line in asked(venv) if line.startswith('pip')]
    removed = ['pip uninstall -y mmcv-lite'] if stack == 'openmmlab' else []
    assert steps == [*removed, f'{COMPILED} {whole}']

    for options in (['--ops'], []):
        assert 'is up to date (' in setup(*chosen, *options, HGKD_VENV=str(venv)).stdout
    assert not [line for line in asked(venv) if line.startswith('pip')]


def test_pure_wheel_from_the_cache_is_not_taken_for_ops(venv: Path) -> None:
    result = setup('--ops', HGKD_VENV=str(venv), CACHED='pure')
    assert result.returncode == 0, result.stderr
    assert 'The mmcv at hand has no ops that load' in result.stdout
    compiled = [line for line in asked(venv) if 'mmcv==' in line]
    assert compiled == [f'{COMPILED} onedl-mmcv==2.3.6'] * 2


def test_without_a_compiler_what_is_there_stays(venv: Path) -> None:
    chosen = ['--stack', 'openmmlab']
    assert setup(*chosen, HGKD_VENV=str(venv)).returncode == 0
    asked(venv)
    result = setup(*chosen, '--ops', HGKD_VENV=str(venv), BROKEN='can-compile')
    assert result.returncode == 1
    assert not [line for line in asked(venv) if line.startswith('pip')]
    assert 'is up to date (' in setup(*chosen, HGKD_VENV=str(venv)).stdout


def test_ops_that_are_there_are_kept_unless_asked_anew(venv: Path) -> None:
    (venv / 'bin/ops').touch()
    compiled = {'HGKD_VENV': str(venv), 'INSTALLED': 'onedl-mmcv==2.3.6', 'MAX_JOBS': '1'}
    assert setup(**compiled).returncode == 0
    steps = asked(venv)
    assert not [line for line in steps if 'onedl-mmcv==' in line]
    assert steps[-1] == CHECK

    assert setup('--rebuild-mmcv', **compiled).returncode == 0
    assert f'{COMPILED} --no-cache-dir onedl-mmcv==2.3.6' in asked(venv)

    # through a change of mmcv's version too
    (venv / 'hgkd_setup').unlink()
    (venv / 'bin/installed').unlink()
    assert setup(HGKD_VENV=str(venv), INSTALLED='onedl-mmcv==2.3.5').returncode == 0
    assert f'{COMPILED} onedl-mmcv==2.3.6' in asked(venv)


@pytest.mark.parametrize(
    ('flag', 'ops'), [('--tran', True), ('--train-teacher', False), ('--seed=1', False)]
)
def test_quickstart_compiles_ops_for_the_transfer_only(venv: Path, flag: str, ops: bool) -> None:
    done = subprocess.run(
        ['bash', 'tools/quickstart.sh', flag],
        env={**os.environ, 'HGKD_VENV': str(venv)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    steps = asked(venv)
    mmcv = COMPILED if ops else f'{PURE} {venv}/built'
    assert f'{mmcv} onedl-mmcv==2.3.6' in steps
    assert steps[-1] == f'tools/quickstart.py, times: {ROOT}/work_dirs/setup.json'


@pytest.mark.parametrize(
    ('stack', 'installed', 'reason', 'removed'),
    [
        (
            'default',
            'onedl-mmcv==2.3.6 mmsegmentation==1.2.2',
            'mmsegmentation: not of this stack',
            # with what it damaged
            'mmsegmentation opencv-python-headless onedl-mmengine onedl-mmpretrain '
            'onedl-mmdetection onedl-mmsegmentation imaug',
        ),
        (
            'openmmlab',
            'mmcv==2.1.0 mmcv-lite==2.1.0',
            'mmcv and mmcv-lite: they own the same files',
            'mmcv mmcv-lite',
        ),
    ],
)
def test_packages_that_own_files_of_the_stack_are_removed(
    stack: str, installed: str, reason: str, removed: str, venv: Path
) -> None:
    result = setup('--stack', stack, HGKD_VENV=str(venv), INSTALLED=installed)
    assert f'removing {reason}' in result.stdout
    assert [line for line in asked(venv) if 'uninstall' in line][0] == f'pip uninstall -y {removed}'


def test_failed_step_says_why_and_is_done_again(venv: Path) -> None:
    result = setup('--ops', HGKD_VENV=str(venv), BROKEN='onedl-mmcv==')
    assert result.returncode == 1
    assert "Set-up stopped: 'mmcv, compiled by" in result.stderr
    assert 'fatal error: Python.h' in result.stderr
    assert f'The whole log is {venv}/setup.log.' in result.stderr
    assert f'tools/install_help.py diagnose {venv}/setup.log' in asked(venv)

    assert 'up to date' not in setup(HGKD_VENV=str(venv)).stdout
