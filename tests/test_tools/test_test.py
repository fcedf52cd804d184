"""tools/test.py and its launchers, run as a user runs them."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[2]

TOY_MODULE = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@DATASETS.register_module()
class FourNumbers(torch.utils.data.Dataset):
    metainfo = {}

    def __init__(self, names=None):
        self.names = names and open(names).read()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([float(index + 1)])


@MODELS.register_module()
class Shift(BaseModel):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *numbers, mode='tensor'):
        return [dict(shifted=number + self.shift) for number in numbers]


@METRICS.register_module()
class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample['shifted'].item() for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))
"""
TOY_CONFIG = """
custom_imports = dict(imports=['toy_module'])
model = dict(type='Shift')
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='FourNumbers'))
test_evaluator = dict(type='Mean')
test_cfg = dict()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / 'toy_module.py').write_text(TOY_MODULE)
    (tmp_path / 'a config.py').write_text(TOY_CONFIG)
    torch.save(dict(state_dict=dict(shift=torch.tensor([10.0]))), tmp_path / 'good.pth')
    torch.save(dict(state_dict=dict(shuft=torch.tensor([10.0]))), tmp_path / 'bad.pth')
    return {**os.environ, 'PYTHONPATH': str(tmp_path), 'HGKD_VENV': str(Path(sys.prefix))}


def run(command: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='this is about machines without a GPU')
def test_two_processes_share_the_images(tmp_path: Path, environment: dict[str, str]) -> None:
    command = ['bash', 'tools/dist_test.sh', tmp_path / 'a config.py', tmp_path / 'good.pth', 2]
    command += ['--work-dir', tmp_path / 'out', '--out', tmp_path / 'all.pkl']
    result = run([*command, '--cfg-options', 'test_dataloader.batch_size=1'], environment)
    assert result.returncode == 0, result.stderr
    assert 'mean: 12.5' in result.stdout + result.stderr
    kept = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    assert [sample['shifted'].item() for sample in kept] == [11, 12, 13, 14]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('test_tool', ROOT / 'tools/test.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures('environment')
@pytest.mark.parametrize(
    ('weights', 'option', 'sentence'),
    [
        ('bad.pth', 'randomness.seed=0', 'bad.pth does not fit this config'),
        (
            'good.pth',
            'test_dataloader.dataset.names=typo.txt',
            "'typo.txt'; python tools/doctor.py",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, option: str, sentence: str
) -> None:
    words = [tmp_path / 'a config.py', tmp_path / weights, '--work-dir', tmp_path / 'out']
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, words), '--cfg-options', option])
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.syspath_prepend(tmp_path)
    with DefaultScope.overwrite_default_scope('mmengine'), pytest.raises(SystemExit) as stopped:
        load_tool().main()
    assert str(stopped.value).startswith('tools/test.py: ')
    assert sentence in str(stopped.value)


@pytest.mark.parametrize(
    ('script', 'arguments', 'sentence'),
    [
        ('dist_test.sh', ['a.py', 'b.pth'], 'needs a config, a checkpoint and a number'),
        ('dist_test.sh', ['configs/typo.py', 'b.pth', '2'], "no config file 'configs/typo.py'"),
        ('dist_test.sh', ['pyproject.toml', 'b.pth', '--out'], "1 or more, not '--out'"),
        ('slurm_test.sh', ['gpu', 'job', 'a.py'], 'needs a partition, a job name, a config and a'),
        ('slurm_test.sh', ['gpu', 'job', 'configs/typo.py', 'b.pth'], 'no config file'),
    ],
)
def test_launchers_refuse_in_a_sentence(
    script: str, arguments: list[str], sentence: str, environment: dict[str, str]
) -> None:
    result = run(['bash', f'tools/{script}', *arguments], environment)
    assert result.returncode == 1
    assert result.stderr.startswith(f'tools/{script}: ')
    assert sentence in result.stderr


def test_slurm_command(tmp_path: Path, environment: dict[str, str]) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    environment = {**environment, 'PATH': f'{tmp_path}:{environment["PATH"]}'}
    config = tmp_path / 'a config.py'
    command = ['bash', 'tools/slurm_test.sh', 'gpu', 'my job', config, 'b.pth', '--out', 'c.pkl']
    result = run(command, environment)
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    assert words[words.index('--ntasks') + 1] == '8'
    assert words[-6:] == ['--launcher', 'slurm', str(config), 'b.pth', '--out', 'c.pkl']
