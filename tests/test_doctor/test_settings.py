from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope

import hgkd_mm.engine
import hgkd_mm.models  # noqa: F401  (registers)
from hgkd_mm.doctor import Section
from hgkd_mm.doctor import settings as module
from hgkd_mm.utils import env_check


@pytest.fixture(autouse=True)
def mmpretrain_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def types(**parts: Any) -> Section:
    section = Section(title='c')
    module.look_at_types(section, Config(parts))
    return section


def test_types_of_all_registries_are_known() -> None:
    section = types(
        model=dict(
            type='HGKD',
            backbone=dict(
                type='mmdet.ResNet', norm_cfg=dict(type='SyncBN'), init_cfg=dict(type='Kaiming')
            ),
            train_cfg=dict(augments=dict(type='Mixup')),
            roi_layer=dict(type='RoIAlign'),
        ),
        train_dataloader=dict(
            sampler=dict(type='DefaultSampler'),
            dataset=dict(type='ImageNet', pipeline=[dict(type='PackInputs')]),
        ),
        optim_wrapper=dict(type='BF16OptimWrapper', optimizer=dict(type='AdamW')),
        param_scheduler=[dict(type='LinearLR')],
        train_cfg=dict(type='EpochBasedTrainLoop'),
        val_evaluator=dict(type='Accuracy'),
        custom_hooks=[dict(type='KNNEvalHook')],
        left_over=dict(type='NoSuchThing'),
    )
    assert section.problems == []
    assert section.facts == [('types', '14 of 14 registered')]


def test_typing_errors_are_found_once() -> None:
    section = types(
        model=dict(type='HGKD', neck=dict(type='UNetDecodr')),
        custom_hooks=[dict(type='KnnHook'), dict(type='KnnHook')],
        train_cfg=dict(type='EpochLoop'),
    )
    assert [p.split(' is')[0] for p in section.problems] == [
        "model.neck.type='UNetDecodr'",
        "custom_hooks.0.type='KnnHook'",
        "train_cfg.type='EpochLoop'",
    ]
    assert all('custom_imports.imports' in p for p in section.problems)


def test_transforms_of_other_libraries_are_left_alone() -> None:
    albu = dict(type='Albumentations', transforms=[])
    wrapped = dict(type='Albu', transforms=[dict(type='RGBShift'), dict(type='Blur')])
    names = [name for _, name in module._types(Config(dict(a_dataloader=[wrapped, albu])))]
    assert names == ['Albu', 'Albumentations']


@pytest.mark.parametrize(
    ('gpus', 'accumulated', 'fact', 'note'),
    [
        (8, 1, '256 images x 8 GPU(s) = 2048', None),
        (1, 8, '256 images x 1 GPU(s) x 8 accumulated = 2048', None),
        (
            2,
            1,
            '256 images x 2 GPU(s) = 512',
            '--auto-scale-lr, or optim_wrapper.accumulative_counts=4',
        ),
        (0, 1, '256 images x 1 process on the CPU = 256', 'accumulative_counts=8'),
        (16, 1, '256 images x 16 GPU(s) = 4096', 'train with --auto-scale-lr.'),
    ],
)
def test_images_a_step(gpus: int, accumulated: int, fact: str, note: str | None) -> None:
    section = Section(title='c')
    config = Config(
        dict(
            train_dataloader=dict(batch_size=256),
            optim_wrapper=dict(accumulative_counts=accumulated),
            auto_scale_lr=dict(base_batch_size=2048),
        )
    )
    module.look_at_batch(section, config, gpus=gpus)
    assert section.facts == [('images a step', fact)]
    assert len(section.notes) == (note is not None)
    assert all(note in n for n in section.notes)


ITERATIONS = dict(
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=900, val_interval=50),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[600, 800], end=900)],
)


@pytest.mark.parametrize(
    ('gpus', 'accumulated', 'factor', 'max_iters'),
    [(2, 1, 4, 3600), (2, 4, 4, 3600), (16, 1, 0.5, 450)],
)
def test_iterations_keep_the_number_of_images(
    gpus: int, accumulated: int, factor: float, max_iters: int
) -> None:
    section = Section(title='c')
    config = Config(
        dict(
            ITERATIONS,
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(accumulative_counts=accumulated),
            auto_scale_lr=dict(base_batch_size=16),
        )
    )
    module.look_at_batch(section, config, gpus=gpus)
    assert len(section.notes) == 1 + (accumulated == 1)
    note = section.notes[-1]
    assert f'multiply them by {factor:g}, ' in note
    words = note.split('--cfg-options ')[1].split()
    options = DictAction._parse_iterable
    given = {key: options(value) for key, value in (word.split('=') for word in words)}
    assert given == {
        'train_cfg.max_iters': max_iters,
        'train_cfg.val_interval': 50 * factor,
        'param_scheduler.0.end': max_iters,
        'param_scheduler.0.milestones': [600 * factor, 800 * factor],
    }
    assert max_iters * 2 * gpus == 900 * 16


def test_as_many_images_an_iteration_need_no_other_schedule() -> None:
    section = Section(title='c')
    config = Config(
        dict(
            ITERATIONS,
            train_dataloader=dict(batch_size=2),
            auto_scale_lr=dict(base_batch_size=16),
        )
    )
    module.look_at_batch(section, config, gpus=8)
    assert section.notes == []


def test_advice_for_averages_and_accumulation() -> None:
    config = Config(
        dict(
            train_dataloader=dict(batch_size=256),
            auto_scale_lr=dict(base_batch_size=2048),
            custom_hooks=[dict(type='Other'), dict(type='EMAHook', momentum=1e-4)],
        )
    )
    section = Section(title='c')
    module.look_at_batch(section, config, gpus=1)
    (note,) = section.notes
    assert 'accumulative_counts=8' in note and 'custom_hooks.1.momentum=1.25e-05' in note
    # 3 x 256 is no divisor, and MMEngine scales by the images of a forward pass
    section = Section(title='c')
    config.optim_wrapper = dict(accumulative_counts=2)
    module.look_at_batch(section, config, gpus=3)
    (note,) = section.notes
    assert note.endswith('accumulative_counts=1 (it does not know of accumulation).')


def test_batch_without_a_base_has_nothing_to_compare() -> None:
    section = Section(title='c')
    module.look_at_batch(section, Config(dict(train_dataloader=dict(batch_size=4))), gpus=1)
    assert section.notes == []


@pytest.mark.parametrize(('capability', 'problems'), [((7, 5), 1), ((8, 0), 0)])
def test_bfloat16(
    capability: tuple[int, int], problems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    section = Section(title='c')
    module.look_at_precision(section, Config(dict(optim_wrapper=dict(type='BF16OptimWrapper'))))
    assert len(section.problems) == problems
    assert all('capability 7.5' in p for p in section.problems)
    assert all('--cfg-options optim_wrapper.type=OptimWrapper' in p for p in section.problems)


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [('tiles', None), ('tyles', "Unknown engine 'tyles'"), ('spconv', 'needs the package spconv')],
)
def test_engine(name: str, sentence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_spconv(name: str) -> None:
        if name == 'spconv':
            raise ImportError("engine='spconv' needs the package spconv-cu120")
        find_engine(name)

    find_engine = module.find_engine
    monkeypatch.setattr(module, 'find_engine', without_spconv)
    section = Section(title='c')
    module.look_at_engine(section, Config(dict(model=dict(engine=name))))
    assert len(section.problems) == (sentence is not None)
    assert all(sentence in problem for problem in section.problems)


@pytest.mark.parametrize(('scope', 'problems'), [('mmdet', 1), ('mmpretrain', 0)])
def test_detectors_need_the_ops_of_the_gpu(
    scope: str, problems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: str) -> None:
        raise RuntimeError(f'nms has no kernel image for {device}')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(env_check, 'run_nms', broken)
    section = Section(title='c')
    module.look_at_nms(section, Config(dict(default_scope=scope)))
    assert len(section.problems) == problems
    assert all('--rebuild-mmcv' in p and 'for cuda' in p for p in section.problems)


def test_work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = Section(title='c')
    module.look_at_work_dir(section, Config(), 'configs/pretrain/mine.py')
    assert section.facts == [('work_dir', 'work_dirs/mine (not made yet)')]
    assert section.problems == []
    assert list(tmp_path.iterdir()) == []


def test_work_dir_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / 'taken').touch()
    section = Section(title='c')
    config = Config(dict(work_dir=str(tmp_path / 'taken' / 'run')))
    module.look_at_work_dir(section, config, 'a.py')
    (problem,) = section.problems
    assert f'{tmp_path}/taken cannot be written to' in problem
    assert '--work-dir DIR' in problem
