"""tools/{dist,slurm}_{train,test}.sh: what they refuse, and the command of Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ['bash', f'tools/{script}', *arguments],
        env={**os.environ, 'HGKD_VENV': sys.prefix, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ('script', 'arguments', 'sentence'),
    [
        ('dist_train.sh', [], 'needs a config and a number of processes'),
        ('dist_train.sh', ['configs/typo.py', '2'], "no config file 'configs/typo.py'"),
        ('dist_train.sh', ['pyproject.toml', '--amp'], "1 or more, not '--amp'"),
        ('dist_test.sh', ['a.py', 'b.pth'], 'needs a config, a checkpoint and a number'),
        ('slurm_train.sh', ['gpu', 'job'], 'needs a partition, a job name and a config'),
        ('slurm_test.sh', ['gpu', 'job', 'a.py'], 'needs a partition, a job name, a config and a'),
    ],
)
def test_refusals(script: str, arguments: list[str], sentence: str) -> None:
    result = run(script, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f'tools/{script}: ') and sentence in result.stderr


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_slurm_command(tool: str, tmp_path: Path) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    config = tmp_path / 'a config.py'
    config.touch()
    path = f'{tmp_path}:{os.environ["PATH"]}'
    words = ['gpu', 'my job', str(config), 'b.pth', '--out', 'c.pkl']
    variables = dict(PATH=path, GPUS='2', SRUN_ARGS='--time 1:00:00')
    result = run(f'slurm_{tool}.sh', *words, **variables)
    assert result.returncode == 0, result.stderr
    given = result.stdout.splitlines()
    assert given[:4] == ['--partition', 'gpu', '--job-name', 'my job']
    for flag, value in (('--gres', 'gpu:2'), ('--ntasks', '2'), ('--time', '1:00:00')):
        assert given[given.index(flag) + 1] == value
    assert given[-7:] == [
        str(ROOT / f'tools/{tool}.py'),
        '--launcher',
        'slurm',
        str(config),
        *words[3:],
    ]
