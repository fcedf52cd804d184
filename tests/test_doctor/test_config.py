"""What a config needs and this machine lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from hgkd_mm.doctor import Section
from hgkd_mm.doctor import config as module
from hgkd_mm.utils import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def whole(path: str, *options: str) -> Section:
    section = Section(title='c')
    module.look_at_config(section, path, options)
    return section


def test_nothing_is_written_and_all_that_is_missing_is_named(tmp_path: Path) -> None:
    path = str(ROOT / 'configs/pretrain/hgkd_r18_scenes.py')
    section = whole(path, 'train_dataloader.batch_size=7')
    data, teacher = section.problems
    assert data.startswith('data/scenes') and 'python tools/make_scenes.py' in data
    assert 'assets/mae_scenes.safetensors, which model.teachers.mim.checkpoint' in teacher
    assert section.facts['images a step'].startswith('7 images x ')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        (None, 'FileNotFoundError'),
        ('a = (', 'SyntaxError'),
        (
            "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)",
            "No module named 'no_such_module'",
        ),
    ],
)
def test_unreadable_config(content: str | None, found: str, tmp_path: Path) -> None:
    path = tmp_path / 'a.py'
    if content is not None:
        path.write_text(content)
    (problem,) = whole(str(path)).problems
    assert problem.startswith(f'{path} ') and found in problem


def test_a_detector_without_ops_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hgkd_mm.utils.launch.has_ops', lambda: False)
    monkeypatch.setattr(environment, 'has_ops', lambda: False)
    monkeypatch.setattr(environment, 'installed_versions', lambda: {'mmcv-lite': '2.1.0'})
    (problem,) = whole(str(ROOT / 'configs/det/mask-rcnn_r50_fpn_1x_coco.py')).problems
    assert '`bash tools/setup_env.sh --stack openmmlab --ops`' in problem


# -- data -----------------------------------------------------------------------------------------


def look(**parts: Any) -> list[str]:
    section = Section(title='c')
    module.look_at_data(section, Config(parts))
    return section.problems


def scenes(split: str, **changes: str) -> dict:
    folder = dict(type='CustomDataset', data_root='data/scenes/', data_prefix=split, pipeline=[])
    return {**folder, **changes}


def test_a_missing_root_is_one_problem_for_all_that_need_it() -> None:
    hook = dict(type='KNNEvalHook', train_dataset=scenes('train'), val_dataset=scenes('val'))
    metric = dict(type='mmdet.CocoMetric', ann_file='data/scenes/coco/annotations/val.json')
    (problem,) = look(
        train_dataloader=dict(dataset=scenes('train')), custom_hooks=[hook], val_evaluator=metric
    )
    assert problem.startswith('data/scenes/ ')
    for key in (
        'train_dataloader.dataset',
        'custom_hooks.0.train_dataset',
        'custom_hooks.0.val_dataset',
        '`python tools/make_scenes.py --out data/scenes`',
        '--cfg-options train_dataloader.dataset.data_root=DIR',
    ):
        assert key in problem
    (problem,) = look(val_evaluator=metric, test_evaluator=metric)
    assert problem.startswith(metric['ann_file']) and 'val_evaluator, test_evaluator' in problem


def test_empty_folders_missing_splits_and_lists() -> None:
    make('data/scenes/train/boat/1.jpg')
    Path('data/scenes/empty').mkdir()
    problems = look(
        train_dataloader=dict(dataset=scenes('train')),
        val_dataloader=dict(dataset=scenes('val', ann_file='list.txt')),
        test_dataloader=dict(dataset=scenes('empty', ann_file='list.txt')),
    )
    assert [p.split(' ')[0].rstrip('/') for p in problems] == [
        'data/scenes/val',
        'data/scenes/list.txt',
        'data/scenes/empty',
    ]


def test_data_sets_in_wrappers_are_found_and_remote_ones_left_alone() -> None:
    inner = dict(type='UnlabelledFolder', data_root='data/b')
    wrapped = dict(type='RepeatDataset', times=2, dataset=inner)
    remote = {**inner, 'data_root': 's3://bucket/a'}
    both = dict(type='ConcatDataset', datasets=[wrapped, remote])
    (problem,) = look(train_dataloader=dict(dataset=both))
    assert 'train_dataloader.dataset.datasets.0.dataset ' in problem


# -- weights --------------------------------------------------------------------------------------


def test_weights_that_are_here_or_not() -> None:
    url = 'https://nowhere.invalid/weights-0123abcd.pth'
    cached = 'hub/hub/checkpoints/weights-0123abcd.pth'
    make('w.pth', cached)
    model = dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='w.pth')),
        teachers=dict(mim=dict(checkpoint='torchvision://resnet50')),
        pretrained='gone.pth',
    )
    section = Section(title='c')
    module.look_at_weights(section, Config(dict(model=model, load_from=url)))
    assert section.facts['model.backbone.init_cfg.checkpoint'] == 'w.pth'
    assert section.facts['load_from'].endswith(cached)
    # the address of torchvision's ResNet50_Weights
    address = 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    fetched = section.facts['model.teachers.mim.checkpoint']
    assert address in fetched and 'hub/checkpoints/resnet50-0676ba61.pth' in fetched
    (problem,) = section.problems
    assert 'gone.pth, which model.pretrained names' in problem
    assert '--cfg-options model.pretrained=FILE' in problem


# -- images a step --------------------------------------------------------------------------------

ITERATIONS = dict(
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=900, val_interval=50),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[600, 800], end=900)],
)


def batch(*, gpus: int, images: int = 256, base: int | None = 2048, steps: int = 1, **parts: Any):
    section = Section(title='c')
    scale = dict(auto_scale_lr=dict(base_batch_size=base)) if base else {}
    loader, wrapper = dict(batch_size=images), dict(accumulative_counts=steps)
    config = Config(dict(train_dataloader=loader, optim_wrapper=wrapper, **scale, **parts))
    module.look_at_batch(section, config, gpus=gpus)
    return section


@pytest.mark.parametrize(
    ('gpus', 'steps', 'actual', 'note'),
    [
        (8, 1, 2048, None),
        (1, 8, 2048, None),
        (2, 1, 512, '--auto-scale-lr, or optim_wrapper.accumulative_counts=4'),
        (0, 1, 256, 'accumulative_counts=8'),
        (16, 1, 4096, '--auto-scale-lr.'),
        # 3 x 256 is no divisor, and MMEngine scales by the images of a forward pass
        (3, 2, 1536, '--auto-scale-lr and optim_wrapper.accumulative_counts=1'),
    ],
)
def test_images_a_step(gpus: int, steps: int, actual: int, note: str | None) -> None:
    section = batch(gpus=gpus, steps=steps)
    assert section.facts['images a step'].endswith(f' = {actual}')
    assert len(section.notes) == (note is not None)
    assert all(note in n for n in section.notes)
    assert batch(gpus=gpus, steps=steps, base=None).notes == []


@pytest.mark.parametrize(
    ('gpus', 'steps', 'factor', 'max_iters'), [(2, 1, 4, 3600), (2, 4, 4, 3600), (16, 1, 0.5, 450)]
)
def test_iterations_keep_the_number_of_images(
    gpus: int, steps: int, factor: float, max_iters: int
) -> None:
    section = batch(gpus=gpus, images=2, base=16, steps=steps, **ITERATIONS)
    assert len(section.notes) == 1 + (steps == 1)
    given = section.notes[-1].split('--cfg-options ')[1].split()
    milestones = f'[{600 * factor:g},{800 * factor:g}]'
    assert given == [
        f'train_cfg.max_iters={max_iters}',
        f'train_cfg.val_interval={50 * factor:g}',
        f'param_scheduler.0.end={max_iters}',
        f'param_scheduler.0.milestones={milestones}',
    ]
    assert batch(gpus=8, images=2, base=16, **ITERATIONS).notes == []


def test_accumulation_lowers_the_momentum_of_averages() -> None:
    hooks = [dict(type='Other'), dict(type='EMAHook', momentum=1e-4)]
    (note,) = batch(gpus=1, custom_hooks=hooks).notes
    assert 'accumulative_counts=8' in note and 'custom_hooks.1.momentum=1.25e-05' in note
