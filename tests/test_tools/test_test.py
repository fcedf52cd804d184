"""tools/test.py and its launcher, run as a user runs them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import toy
from helpers.tools import load_tool
from mmengine.config import Config
from mmengine.registry import DefaultScope

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
test_tool = load_tool('test')


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """With a checkpoint of its model beside it, and one of another."""
    torch.save(dict(state_dict=dict(centre=torch.tensor([10.0]))), tmp_path / 'good.pth')
    torch.save(dict(state_dict=dict(center=torch.tensor([10.0]))), tmp_path / 'bad.pth')
    path = tmp_path / 'a config.py'
    path.write_text(toy.CONFIG.format(batch=4, norm='BN'))
    return path


@pytest.mark.skipif(torch.cuda.is_available(), reason='this is about machines without a GPU')
def test_two_processes_share_the_images(config: Path) -> None:
    folder = config.parent
    command = ['bash', 'tools/dist_test.sh', config, folder / 'good.pth', 2]
    command += ['--work-dir', folder / 'out', '--out', folder / 'all.pkl']
    result = subprocess.run(
        list(map(str, command)),
        env={**os.environ, 'PYTHONPATH': str(ROOT / 'tests'), 'HGKD_VENV': sys.prefix},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert 'mean: 12.5' in result.stdout + result.stderr
    kept = pickle.loads((folder / 'all.pkl').read_bytes())
    assert [sample['moved'].item() for sample in kept] == [11, 12, 13, 14]


@pytest.mark.parametrize(
    ('weights', 'option', 'sentence'),
    [
        ('bad.pth', 'randomness.seed=0', 'bad.pth does not fit this config'),
        ('typo.pth', 'randomness.seed=0', 'typo.pth'),
        (
            'good.pth',
            'test_dataloader.dataset.names=typo.txt',
            "'typo.txt'; python tools/doctor.py",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    config: Path, monkeypatch: pytest.MonkeyPatch, weights: str, option: str, sentence: str
) -> None:
    words = [config, config.parent / weights, '--work-dir', config.parent / 'out']
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, words), '--cfg-options', option])
    with DefaultScope.overwrite_default_scope('mmengine'), pytest.raises(SystemExit) as stopped:
        test_tool.main()
    assert str(stopped.value).startswith('tools/test.py: ')
    assert sentence in str(stopped.value)


def merged(scope: str, *flags: str, **changes: Any) -> Config:
    """The config of a test with these flags."""
    defaults = dict(
        default_scope=scope,
        model=dict(type='Toy'),
        resume=True,
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')]),
        test_dataloader=dict(batch_size=2, num_workers=0),
        test_evaluator=dict(type='Metric'),
    )
    args = test_tool.parse_args(['configs/det/some_config.py', 'epoch_1.pth', *flags])
    return test_tool.merge_test_args(Config({**defaults, **changes}), args)


@pytest.fixture(autouse=True)
def local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tool would set it for good


def test_checkpoint_is_loaded_and_checked() -> None:
    config = merged('mmdet', custom_hooks=[dict(type='NumClassCheckHook')])
    assert (config.load_from, config.resume) == ('epoch_1.pth', False)
    assert config.work_dir == 'work_dirs/some_config'
    assert [h.type for h in config.custom_hooks] == ['NumClassCheckHook', 'WholeCheckpointHook']
    assert 'collate_fn' not in config.test_dataloader


@pytest.mark.parametrize('flags', [('--out', 'a.pkl'), ('--show-dir', 'pictures')])
def test_what_is_kept_is_of_the_averaged_weights(flags: tuple[str, str]) -> None:
    both = dict(type='EMAHook', momentum=0.1, evaluate_on_origin=True)
    # MMEngine's own hook tests the averaged weights only, and has no such argument.
    others = [dict(type='mmengine.EMAHook'), dict(both, evaluate_on_ema=False)]
    hooks = dict(custom_hooks=[both, *others])
    averaged = [dict(both, evaluate_on_origin=False), *others]
    assert merged('mmpretrain', *flags, **hooks).custom_hooks[:-1] == averaged
    assert merged('mmpretrain', **hooks).custom_hooks[:-1] == [both, *others]


@pytest.mark.parametrize('interval', [1, 50])
def test_pictures(interval: int) -> None:
    folder = str(Path('pictures').resolve())
    before = dict(visualization=dict(type='Other', interval=50)) if interval == 50 else {}
    for scope, expected in (
        ('mmpretrain', dict(type='VisualizationHook', enable=True, out_dir=folder)),
        ('mmdet', dict(type='DetVisualizationHook', draw=True, test_out_dir=folder)),
        ('mmseg', dict(type='SegVisualizationHook', draw=True)),
    ):
        config = merged(scope, '--show-dir', 'pictures', default_hooks=before)
        assert config.default_hooks.visualization == dict(expected, interval=interval)
    assert config.visualizer == dict(
        type='Visualizer', save_dir=folder, vis_backends=[dict(type='LocalVisBackend')]
    )


def test_predictions_are_kept() -> None:
    first, second = dict(type='Metric'), dict(type='Another')
    dump = dict(type='DumpResults', out_file_path='a.pkl')
    assert merged('mmpretrain', '--out', 'a.pkl').test_evaluator == [first, dump]
    found = merged('mmdet', '--out', 'a.pkl', test_evaluator=[first, second]).test_evaluator
    assert found == [first, second, dict(dump, type='DumpDetResults')]
    expected = [dict(type='Metric', output_dir='maps')]
    assert merged('mmseg', '--out', 'maps').test_evaluator == expected
