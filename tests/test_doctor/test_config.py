from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from PIL import Image

from hgkd_mm.doctor import Section
from hgkd_mm.doctor import config as module

ROOT = Path(__file__).resolve().parents[2]
SCENES = str(ROOT / 'configs/pretrain/hgkd_r18_scenes.py')


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith('.png'):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        else:
            Path(path).touch()


# -- the whole config -----------------------------------------------------------------------------


def test_what_the_quickstart_runs_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    section = module.look_at_config(SCENES, ['train_dataloader.batch_size=7'], build=True)
    # the data set is made by the quickstart, and need not be here
    assert all(problem.startswith('data/scenes') for problem in section.problems)
    assert section.facts['model'].startswith('HGKD ')
    assert section.facts['model.teachers.mim.checkpoint'] == 'assets/mae_scenes.safetensors'
    assert section.facts['images a step'].startswith('7 images x ')


def test_nothing_is_written_and_all_that_is_missing_is_named(tmp_path: Path) -> None:
    section = module.look_at_config(SCENES, build=True)
    data, teacher = section.problems
    assert data.startswith('data/scenes') and 'python tools/make_scenes.py' in data
    assert 'assets/mae_scenes.safetensors, which model.teachers.mim.checkpoint' in teacher
    assert 'model' not in section.facts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        (None, 'FileNotFoundError'),
        ('a = (', 'SyntaxError'),
        ("_base_ = './no.py'", 'FileNotFoundError'),
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
    (problem,) = module.look_at_config(str(path)).problems
    assert problem.startswith(f'{path} ') and found in problem


# -- data -----------------------------------------------------------------------------------------


def look(*, load: bool = False, **parts: Any) -> Section:
    section = Section(title='c')
    before = sorted(Path.cwd().rglob('*'))
    module.look_at_data(section, Config(parts), load=load)
    assert sorted(Path.cwd().rglob('*')) == before
    return section


def loader(**dataset: Any) -> dict:
    return dict(batch_size=2, dataset=dict(pipeline=[], **dataset))


def scenes(split: str) -> dict:
    return dict(type='CustomDataset', data_root='data/scenes/', data_prefix=split, pipeline=[])


def test_a_missing_root_is_one_problem_for_all_that_need_it() -> None:
    hook = dict(type='KNNEvalHook', train_dataset=scenes('train'), val_dataset=scenes('val'))
    metric = dict(type='mmdet.CocoMetric', ann_file='data/scenes/coco/annotations/val.json')
    section = look(
        train_dataloader=dict(dataset=scenes('train')), custom_hooks=[hook], val_evaluator=metric
    )
    (problem,) = section.problems
    assert problem.startswith('data/scenes/ ')
    for key in (
        'train_dataloader.dataset',
        'custom_hooks.0.train_dataset',
        'custom_hooks.0.val_dataset',
        '`python tools/make_scenes.py --out data/scenes`',
        '--cfg-options train_dataloader.dataset.data_root=DIR',
    ):
        assert key in problem
    (problem,) = look(val_evaluator=metric, test_evaluator=metric).problems
    assert problem.startswith(metric['ann_file']) and 'val_evaluator, test_evaluator' in problem


@pytest.mark.parametrize(
    ('root', 'cure'),
    [
        ('data/scenes/coco/', 'python tools/make_scenes.py --out data/scenes`'),
        ('/big/scenes_64', 'python tools/make_scenes.py --out /big/scenes_64`'),
        ('data/imagenet/', 'ln -s /path/to/imagenet data/imagenet`'),
        ('data/coco/', 'ln -s /path/to/coco data/coco`'),
        ('data/ade/ADEChallengeData2016', 'Data2016 data/ade/ADEChallengeData2016`'),
        ('data/decade', None),
    ],
)
def test_cure_of_missing_data(root: str, cure: str | None) -> None:
    (problem,) = look(train_dataloader=loader(type='UnlabelledFolder', data_root=root)).problems
    assert 'data_root=DIR' in problem
    assert (cure in problem) if cure else ('`' not in problem)


def test_empty_folders_missing_splits_and_lists() -> None:
    make('data/scenes/train/boat/1.jpg')
    Path('data/scenes/empty').mkdir()
    val, empty = ({**scenes(split), 'ann_file': 'list.txt'} for split in ('val', 'empty'))
    section = look(
        train_dataloader=dict(dataset=scenes('train')),
        val_dataloader=dict(dataset=val),
        test_dataloader=dict(dataset=empty),
    )
    assert [p.split(' ')[0].rstrip('/') for p in section.problems] == [
        'data/scenes/val',
        'data/scenes/list.txt',
        'data/scenes/empty',
    ]


def test_data_sets_in_wrappers_are_found_and_remote_ones_left_alone() -> None:
    inner = dict(type='UnlabelledFolder', data_root='data/b')
    wrapped = dict(type='RepeatDataset', times=2, dataset=inner)
    remote = {**inner, 'data_root': 's3://bucket/a'}
    both = dict(type='ConcatDataset', datasets=[wrapped, remote])
    (problem,) = look(train_dataloader=dict(dataset=both)).problems
    assert 'train_dataloader.dataset.datasets.0.dataset ' in problem


def test_arguments_that_do_not_fit() -> None:
    section = look(train_dataloader=loader(type='UnlabelledFolder', data_root='data/a', sise=2))
    (problem,) = section.problems
    assert problem.startswith('train_dataloader.dataset ')
    assert 'TypeError' in problem and 'sise' in problem


def test_first_image_of_each_data_set() -> None:
    make('data/a/x/1.png', 'data/a/y/2.png')
    pipeline = [dict(type='LoadImageFromFile')]
    folder = dict(data_root='data/a', pipeline=pipeline)
    good = dict(type='CustomDataset', **folder)
    hook = dict(type='KNNEvalHook', train_dataset=good)
    both = dict(val_dataloader=dict(dataset=good), custom_hooks=[hook])
    assert look(load=True, **both).facts.keys() == {'val_dataloader.dataset'}
    # the classes of ImageNet are not the two that are there
    (problem,) = look(
        load=True, val_dataloader=dict(dataset=dict(type='ImageNet', split='', **folder))
    ).problems
    assert problem.startswith('val_dataloader.dataset ')
    Path('data/a/x/1.png').write_bytes(b'')
    assert len(look(load=True, **both).problems) == 1
    assert look(**both).problems == []


# -- weights --------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers by the number in the path and writes down what it is asked."""

    asked: list[str] = []

    def do_HEAD(self) -> None:  # noqa: N802
        self.asked.append(f'HEAD {self.path}')
        self.send_response(int(self.path.split('/')[1]))
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.asked = []
    with HTTPServer(('127.0.0.1', 0), Answers) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with HTTPServer(('127.0.0.1', 0), Answers) as http:
        return f'http://127.0.0.1:{http.server_port}/weights-0123abcd.pth'


def weights(**parts: Any) -> tuple[Section, bool]:
    section = Section(title='c')
    return section, module.look_at_weights(section, Config(parts))


def teacher(checkpoint: str) -> dict:
    return dict(type='HGKD', teachers=dict(mim=dict(type='MIMTeacher', checkpoint=checkpoint)))


def test_files_that_are_here_or_not(nowhere: str) -> None:
    cached = 'hub/hub/checkpoints/weights-0123abcd.pth'
    make('w.pth', cached)
    backbone = dict(init_cfg=dict(type='Pretrained', checkpoint='w.pth'))
    section, complete = weights(model=dict(backbone=backbone), load_from=nowhere)
    assert complete and section.problems == []
    assert section.facts['model.backbone.init_cfg.checkpoint'] == 'w.pth'
    assert section.facts['load_from'].endswith(cached)

    Path('w.pth').unlink()
    section, complete = weights(
        model=dict(backbone=backbone, pretrained='gone.pth'),
        load_from='work_dirs/quickstart/hgkd/last.pth',
    )
    assert not complete
    for name, problem in zip(('gone.pth', 'w.pth', 'quickstart.sh'), section.problems, strict=True):
        assert name in problem


def test_address_that_answers(server: str, tmp_path: Path) -> None:
    section, complete = weights(model=teacher(f'{server}/200/weights.pth'))
    assert section.problems == [] and not complete
    assert f'{server}/200/weights.pth' in section.facts['model.teachers.mim.checkpoint']
    assert Answers.asked == ['HEAD /200/weights.pth']
    assert list(tmp_path.iterdir()) == []
    assert module.unreachable(f'{server}/405/a') is None
    assert '404' in module.unreachable(f'{server}/404/a')
    assert module.unreachable('http:///')


def test_address_without_a_network(nowhere: str, tmp_path: Path) -> None:
    (problem,) = weights(model=teacher(nowhere))[0].problems
    assert problem.startswith(f'model.teachers.mim.checkpoint: {nowhere} is not in {tmp_path}/hub/')
    assert 'Connection refused' in problem and 'weights-0123abcd.pth' in problem
    assert '--cfg-options model.teachers.mim.checkpoint=FILE' in problem


def test_short_names_of_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, 'unreachable', asked.append)
    backbone = dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    weights(model=dict(pretrained='open-mmlab://resnet50_v1c', backbone=backbone))
    # The addresses in mmengine/hub/openmmlab.json and torchvision's ResNet50_Weights.
    v1c, torchvisions = asked
    assert v1c.endswith('resnet50_v1c-2cccc1ad.pth')
    assert torchvisions == 'https://download.pytorch.org/models/resnet50-0676ba61.pth'


# -- model ----------------------------------------------------------------------------------------


# 20 convolutions and 20 norms of 4: 100 weights and 20 counters
TINY = dict(type='ResNet', depth=18, stem_channels=4, base_channels=4)


def build(*, hook: dict | None = None, **backbone: Any) -> Section:
    tiny = {**TINY, **backbone}
    head = dict(type='LinearClsHead', num_classes=2, in_channels=32)
    neck = dict(type='GlobalAveragePooling')
    config = Config(
        dict(
            model=dict(type='ImageClassifier', backbone=tiny, neck=neck, head=head),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[hook] if hook else [],
        )
    )
    section = Section(title='c')
    module.build_model(section, config)
    return section


def test_weights_are_compared_with_the_network_as_in_training() -> None:
    assert build().problems == []
    init = dict(type='Pretrained', checkpoint='w.pth', prefix='backbone')
    state = module.MODELS.build(TINY).state_dict()
    state = {f'backbone.{name}': value for name, value in state.items()}
    torch.save(dict(state_dict=state), 'w.pth')
    section = build(init_cfg=init)
    assert section.problems == []
    assert any('model.backbone' in note and '100 of 100' in note for note in section.notes)

    torch.save({name: v for name, v in state.items() if 'layer4' not in name}, 'w.pth')
    (problem,) = build(init_cfg=init).problems
    assert 'PretrainedWeightsError' in problem and '75 of 100' in problem
    for kind in ('PretrainedReportHook', 'mmengine.PretrainedReportHook'):
        allowed = dict(type=kind, allow_missing=['backbone.layer4.*'])
        assert build(init_cfg=init, hook=allowed).problems == []
    refused = dict(type='PretrainedReportHook', allow_missing=['backbone.layer3.*'])
    assert len(build(init_cfg=init, hook=refused).problems) == 1


def test_load_from_is_compared_with_the_model() -> None:
    state = module.MODELS.build(TINY).state_dict()
    torch.save(state, 'w.pth')
    config = Config(dict(model=TINY, load_from='w.pth'))
    section = Section(title='c')
    module.build_model(section, config)
    assert section.problems == []
    torch.save({name: v for name, v in state.items() if 'layer4' not in name}, 'w.pth')
    module.build_model(section, config)
    (problem,) = section.problems
    assert problem.startswith('load_from: w.pth') and '25 missing' in problem


def test_a_model_that_cannot_be_built_is_one_sentence() -> None:
    (problem,) = build(depth=19).problems
    assert '\n' not in problem and 'KeyError' in problem and '19' in problem
    Path('w.pth').write_bytes(b'PK\x03\x04 no archive')
    (problem,) = build(init_cfg=dict(type='Pretrained', checkpoint='w.pth')).problems
    assert 'w.pth' in problem and 'model.backbone.init_cfg.checkpoint' in problem


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
    words = section.notes[-1].split('--cfg-options ')[1].split()
    options = DictAction._parse_iterable
    given = {key: options(value) for key, value in (word.split('=') for word in words)}
    assert given == {
        'train_cfg.max_iters': max_iters,
        'train_cfg.val_interval': 50 * factor,
        'param_scheduler.0.end': max_iters,
        'param_scheduler.0.milestones': [600 * factor, 800 * factor],
    }
    assert max_iters * 2 * gpus == 900 * 16
    assert batch(gpus=8, images=2, base=16, **ITERATIONS).notes == []


def test_accumulation_lowers_the_momentum_of_averages() -> None:
    hooks = [dict(type='Other'), dict(type='EMAHook', momentum=1e-4)]
    (note,) = batch(gpus=1, custom_hooks=hooks).notes
    assert 'accumulative_counts=8' in note and 'custom_hooks.1.momentum=1.25e-05' in note
