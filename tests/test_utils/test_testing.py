from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from hgkd_mm.utils.testing import merge_test_args


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / 'epoch_1.pth'
    path.touch()
    return str(path)


def make_args(checkpoint: str, **changes: Any) -> argparse.Namespace:
    defaults = dict(
        config='configs/det/some_config.py',
        checkpoint=checkpoint,
        work_dir=None,
        show_dir=None,
        out=None,
        launcher='none',
        trust_checkpoint=False,
    )
    return argparse.Namespace(**{**defaults, **changes})


def make_config(scope: str, **changes: Any) -> Config:
    defaults = dict(
        default_scope=scope,
        model=dict(type='Toy'),
        resume=True,
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')]),
        test_dataloader=dict(batch_size=2, num_workers=0),
        test_evaluator=dict(type='Metric'),
    )
    return Config({**defaults, **changes})


def test_checkpoint_is_loaded_and_checked(checkpoint: str) -> None:
    config = make_config('mmdet', custom_hooks=[dict(type='NumClassCheckHook')])
    merged = merge_test_args(config, make_args(checkpoint))
    assert (merged.load_from, merged.resume) == (checkpoint, False)
    assert merged.work_dir == 'work_dirs/some_config'
    hooks = [hook.type for hook in merged.custom_hooks]
    assert hooks == ['NumClassCheckHook', 'WholeCheckpointHook']
    assert 'collate_fn' not in merged.test_dataloader
    with pytest.raises(FileNotFoundError, match="no checkpoint 'typo.pth'"):
        merge_test_args(make_config('mmdet'), make_args('typo.pth'))


@pytest.mark.parametrize('flag', [dict(out='a.pkl'), dict(show_dir='pictures')])
def test_what_is_kept_is_of_the_averaged_weights(checkpoint: str, flag: dict) -> None:
    both = dict(type='EMAHook', momentum=0.1, evaluate_on_origin=True)
    # MMEngine's own hook tests the averaged weights only, and has no such argument.
    others = [dict(type='mmengine.EMAHook'), dict(both, evaluate_on_ema=False)]

    def hooks(**flags: str) -> list[dict]:
        config = make_config('mmpretrain', custom_hooks=[both, *others])
        return merge_test_args(config, make_args(checkpoint, **flags)).custom_hooks[:-1]

    assert hooks(**flag) == [dict(both, evaluate_on_origin=False), *others]
    assert hooks() == [both, *others]


def test_a_config_without_hooks(checkpoint: str) -> None:
    merged = merge_test_args(make_config('mmdet', custom_hooks=None), make_args(checkpoint))
    assert [hook.type for hook in merged.custom_hooks] == ['WholeCheckpointHook']


def test_a_config_of_pre_training_is_refused(checkpoint: str) -> None:
    config = make_config('mmpretrain', test_dataloader=None)
    with pytest.raises(ValueError, match='some_config.py has no test_dataloader'):
        merge_test_args(config, make_args(checkpoint))


@pytest.mark.parametrize('written', [None, dict(visualization=dict(type='Other', interval=50))])
def test_pictures(checkpoint: str, written: dict | None) -> None:
    interval = 50 if written else 1
    folder = str(Path('pictures').resolve())

    def merged(scope: str) -> Config:
        config = make_config(scope, **({'default_hooks': written} if written else {}))
        return merge_test_args(config, make_args(checkpoint, show_dir='pictures'))

    expected = dict(type='VisualizationHook', enable=True, interval=interval, out_dir=folder)
    assert merged('mmpretrain').default_hooks.visualization == expected
    expected = dict(type='DetVisualizationHook', draw=True, interval=interval, test_out_dir=folder)
    assert merged('mmdet').default_hooks.visualization == expected
    config = merged('mmseg')
    expected = dict(type='SegVisualizationHook', draw=True, interval=interval)
    assert config.default_hooks.visualization == expected
    assert config.visualizer == dict(
        type='Visualizer', save_dir=folder, vis_backends=[dict(type='LocalVisBackend')]
    )
    with pytest.raises(ValueError, match="default_scope='mmocr'"):
        merged('mmocr')


def test_predictions_are_kept(checkpoint: str) -> None:
    def evaluators(scope: str, out: str, **changes: Any) -> list[dict]:
        return merge_test_args(
            make_config(scope, **changes), make_args(checkpoint, out=out)
        ).test_evaluator

    first = dict(type='Metric')
    dump = dict(type='DumpResults', out_file_path='a.pkl')
    assert evaluators('mmpretrain', 'a.pkl') == [first, dump]
    two = [first, dict(type='Another')]
    det = dict(type='DumpDetResults', out_file_path='a.pkl')
    assert evaluators('mmdet', 'a.pkl', test_evaluator=two) == [*two, det]
    assert evaluators('mmseg', 'maps') == [dict(type='Metric', output_dir='maps')]
    with pytest.raises(ValueError, match="NAME.pkl, and got 'maps'"):
        evaluators('mmdet', 'maps')
