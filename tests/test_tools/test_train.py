"""tools/train.py and tools/dist_train.sh, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import toy
from helpers.pickles import MakesFolder
from mmengine.registry import DefaultScope

from hgkd_mm import train
from hgkd_mm.weights.reading import read_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason='this is about machines without a GPU')
def test_two_processes_train_without_a_gpu(tmp_path: Path) -> None:
    config, work_dir = tmp_path / 'a config.py', tmp_path / 'work dir'
    config.write_text(toy.CONFIG.format(batch=2, norm='SyncBN'))
    command = ['bash', 'tools/dist_train.sh', str(config), '2', '--work-dir', str(work_dir)]
    result = subprocess.run(
        [*command, '--amp', '--cfg-options', 'randomness.seed=0'],
        env={**os.environ, 'PYTHONPATH': str(ROOT / 'tests'), 'HGKD_VENV': sys.prefix},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    state = torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']
    assert state['centre'].item() == pytest.approx(2.5)
    assert 'BF16OptimWrapper' in (work_dir / 'a config.py').read_text()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Trains in this process; what it stops with, '' if it goes well."""
    config = tmp_path / 'config.py'
    config.write_text(toy.CONFIG.format(batch=4, norm='BN'))
    monkeypatch.setenv('LOCAL_RANK', '0')

    def start(*words: str, config: Path = config) -> str:
        argv = ['train.py', str(config), '--work-dir', str(tmp_path / 'out'), *words]
        monkeypatch.setattr(sys, 'argv', argv)
        with DefaultScope.overwrite_default_scope('mmengine'):
            try:
                train.main()
            except SystemExit as stopped:
                return str(stopped)
        return ''

    return start


def test_resuming_goes_on_and_overwrites_nothing(tmp_path: Path, run: Callable[..., str]) -> None:
    assert run('--amp', '--cfg-options', 'train_cfg.max_epochs=2') == ''
    first = read_file(tmp_path / 'out' / 'epoch_1.pth')
    assert first['state_dict']['centre'].item() == pytest.approx(2.5, rel=1e-2)
    (tmp_path / 'out' / 'last_checkpoint').unlink()
    before = (tmp_path / 'out' / 'epoch_2.pth').read_bytes()
    assert run('--amp', '--resume', '--cfg-options', 'train_cfg.max_epochs=3') == ''
    assert (tmp_path / 'out' / 'epoch_2.pth').read_bytes() == before
    last = read_file(tmp_path / 'out' / 'epoch_3.pth')
    assert (last['meta']['epoch'], last['meta']['iter']) == (3, 3)
    assert len(last['message_hub']['log_scalars']['train/loss'].data[0]) == 3


def test_a_file_that_would_run_code_is_one_sentence(
    tmp_path: Path, run: Callable[..., str]
) -> None:
    path, made = tmp_path / 'start.pth', tmp_path / 'made'
    torch.save({'state_dict': {'centre': torch.ones(1)}, 'x': MakesFolder(made)}, path)
    words = ['--cfg-options', f'load_from={path}']
    told = run(*words)
    assert not made.exists()
    assert told.startswith('tools/train.py: ') and '--trust-checkpoint' in told
    assert run(*words, '--trust-checkpoint') == ''
    assert made.exists()  # it would have run


def test_what_is_absent_is_one_sentence(tmp_path: Path, run: Callable[..., str]) -> None:
    assert run(config=Path('configs/typo.py')).startswith('tools/train.py: ')
    config = tmp_path / 'config.py'
    config.write_text(
        f"{config.read_text()}model['init_cfg'] = dict(type='Pretrained', checkpoint='typo.pth')\n"
        "custom_hooks = [dict(type='PretrainedReportHook')]\n"
    )
    told = run()
    assert told.startswith('tools/train.py: There is no') and 'typo.pth' in told


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('LOCAL_RANK')
    words = 'a.py --resume --local-rank 3 --cfg-options model.x=1 model.y=[2,3]'
    args = train.parse_args(words.split())
    assert (args.resume, args.amp, args.launcher) == ('auto', False, 'none')
    assert args.cfg_options == {'model.x': 1, 'model.y': [2, 3]}
    assert os.environ['LOCAL_RANK'] == '3'
    assert train.parse_args(['a.py', '--resume', 'b.pth']).resume == 'b.pth'
