"""tools/train.py and tools/dist_train.sh, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.pickles import MakesFolder
from mmengine.registry import DefaultScope

from hgkd_mm import train
from hgkd_mm.weights.reading import read_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

TOY_MODULE = """
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS


@DATASETS.register_module()
class FourNumbers(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([float(index + 1)])


@MODELS.register_module()
class Centre(BaseModel):
    def __init__(self, norm_cfg, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        assert norm_cfg['type'] == 'BN'
        self.centre = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *numbers, mode='tensor'):
        return dict(loss=torch.stack(numbers).sub(self.centre).square().mean() / 2)
"""
# a step of SGD with lr 1 moves `centre` from 0 to the mean of the joint batch
TOY_CONFIG = """
custom_imports = dict(imports=['toy_module'])
model = dict(type='Centre', norm_cfg=dict(type='{norm}'))
train_dataloader = dict(
    batch_size={batch}, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='FourNumbers'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
train_cfg = dict(by_epoch=True, max_epochs=1)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / 'toy_module.py').write_text(TOY_MODULE)
    venv = Path(sys.prefix)
    return {**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}', 'HGKD_VENV': str(venv)}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def trained_centre(work_dir: Path) -> float:
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    return checkpoint['state_dict']['centre'].item()


@pytest.mark.skipif(torch.cuda.is_available(), reason='this is about machines without a GPU')
def test_two_processes_train_without_a_gpu(tmp_path: Path, environment: dict[str, str]) -> None:
    config, work_dir = tmp_path / 'a config.py', tmp_path / 'work dir'
    config.write_text(TOY_CONFIG.format(batch=2, norm='SyncBN'))
    command = ['bash', 'tools/dist_train.sh', str(config), '2', '--work-dir', str(work_dir)]
    options = ['--amp', '--cfg-options', 'randomness.seed=0']
    result = run([*command, *options], environment)
    assert result.returncode == 0, result.stderr
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert checkpoint['state_dict']['centre'].item() == pytest.approx(2.5)
    assert 'BF16OptimWrapper' in (work_dir / 'a config.py').read_text()


def toy_run(tmp_path: Path, environment: dict[str, str], *words: str) -> str:
    """What a run of one epoch, or more, says on its error stream; '' if it goes well."""
    config = tmp_path / 'config.py'
    if not config.is_file():
        config.write_text(TOY_CONFIG.format(batch=4, norm='BN'))
    command = [sys.executable, 'tools/train.py', str(config), '--work-dir', str(tmp_path / 'out')]
    result = run([*command, *words], environment)
    return result.stderr if result.returncode else ''


def test_resuming_goes_on_and_overwrites_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert toy_run(tmp_path, environment, '--cfg-options', 'train_cfg.max_epochs=2') == ''
    (tmp_path / 'out' / 'last_checkpoint').unlink()
    before = (tmp_path / 'out' / 'epoch_2.pth').read_bytes()
    longer = ['--resume', '--cfg-options', 'train_cfg.max_epochs=3']
    assert toy_run(tmp_path, environment, *longer) == ''
    assert (tmp_path / 'out' / 'epoch_2.pth').read_bytes() == before
    last = read_file(tmp_path / 'out' / 'epoch_3.pth')
    assert (last['meta']['epoch'], last['meta']['iter']) == (3, 3)
    assert len(last['message_hub']['log_scalars']['train/loss'].data[0]) == 3


def test_a_file_that_would_run_code_is_one_sentence(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path, made = tmp_path / 'start.pth', tmp_path / 'made'
    torch.save({'state_dict': {'centre': torch.ones(1)}, 'x': MakesFolder(made)}, path)
    words = ['--cfg-options', f'load_from={path}']
    told = toy_run(tmp_path, environment, *words)
    assert not made.exists()
    assert told.splitlines()[-1].startswith('tools/train.py: ') and '--trust-checkpoint' in told
    assert toy_run(tmp_path, environment, *words, '--trust-checkpoint') == ''
    assert made.exists()  # it would have run


def test_absent_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'toy_module_of_train.py').write_text(
        TOY_MODULE.replace('FourNumbers', 'FourNumbersOfTrain').replace('Centre', 'CentreOfTrain')
    )
    text = TOY_CONFIG.format(batch=2, norm='BN').replace('toy_module', 'toy_module_of_train')
    text = text.replace('FourNumbers', 'FourNumbersOfTrain').replace('Centre', 'CentreOfTrain')
    config = tmp_path / 'config.py'
    config.write_text(
        f"{text}model['init_cfg'] = dict(type='Pretrained', checkpoint='typo.pth')\n"
        "custom_hooks = [dict(type='PretrainedReportHook')]\n"
    )
    words = ['train.py', str(config), '--work-dir', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', words)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.syspath_prepend(tmp_path)
    with DefaultScope.overwrite_default_scope('mmengine'), pytest.raises(SystemExit) as stopped:
        train.main()
    assert str(stopped.value).startswith('tools/train.py: There is no')
    assert 'typo.pth' in str(stopped.value)
    monkeypatch.setattr(sys, 'argv', ['train.py', 'configs/typo.py'])
    with pytest.raises(SystemExit, match=r'tools/train.py: .*configs/typo\.py'):
        train.main()


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('LOCAL_RANK')
    words = 'a.py --resume --local-rank 3 --cfg-options model.x=1 model.y=[2,3]'
    args = train.parse_args(words.split())
    assert (args.resume, args.amp, args.launcher) == ('auto', False, 'none')
    assert args.cfg_options == {'model.x': 1, 'model.y': [2, 3]}
    assert os.environ['LOCAL_RANK'] == '3'
    assert train.parse_args(['a.py', '--resume', 'b.pth']).resume == 'b.pth'
