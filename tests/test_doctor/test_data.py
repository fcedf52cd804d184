from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

import hgkd_mm.datasets
import hgkd_mm.engine  # noqa: F401  (registers)
from hgkd_mm.doctor import Section
from hgkd_mm.doctor.data import look_at_data
from hgkd_mm.doctor.files import ENOUGH, count, counted, data_cure, files_below


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield tmp_path


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def look(**parts: Any) -> Section:
    section = Section(title='c')
    before = sorted(Path.cwd().rglob('*'))
    look_at_data(section, Config(parts))
    assert sorted(Path.cwd().rglob('*')) == before
    return section


def loader(**dataset: Any) -> dict:
    return dict(batch_size=2, dataset=dict(pipeline=[], **dataset))


def scenes(split: str) -> dict:
    return dict(type='CustomDataset', data_root='data/scenes/', data_prefix=split, pipeline=[])


def test_missing_root_is_told_once_for_all_that_ask() -> None:
    hook = dict(type='KNNEvalHook', train_dataset=scenes('train'), val_dataset=scenes('val'))
    section = look(train_dataloader=dict(dataset=scenes('train')), custom_hooks=[hook])
    (problem,) = section.problems
    assert problem.startswith(
        'There is no folder data/scenes/, which is asked for by train_dataloader.dataset, '
        'custom_hooks.0.train_dataset, custom_hooks.0.val_dataset (relative paths start at '
    )
    assert '`python tools/make_scenes.py --out data/scenes`' in problem
    assert '--cfg-options train_dataloader.dataset.data_root=DIR' in problem


@pytest.mark.parametrize(
    ('root', 'cure'),
    [
        ('data/scenes/coco/', '`python tools/make_scenes.py --out data/scenes`'),
        ('/big/scenes_64', '`python tools/make_scenes.py --out /big/scenes_64`'),
        ('data/imagenet/', '`ln -s /path/to/imagenet data/imagenet`'),
        ('data/coco/', '`ln -s /path/to/coco data/coco`'),
        ('data/ade/ADEChallengeData2016', '`ln -s /path/to/ADEChallengeData2016 data/ade/ADE'),
        ('data/decade', 'set key.data_root to where it is'),
    ],
)
def test_cure_of_missing_data(root: str, cure: str) -> None:
    assert data_cure(root, 'key').startswith(cure) or cure in data_cure(root, 'key')
    assert data_cure(root, 'key').endswith('(--cfg-options key.data_root=DIR)')
    assert ('ln -s' in data_cure('data/decade', 'key')) is False


def test_images_are_counted() -> None:
    make('data/a/x/1.jpg', 'data/a/x/.hidden.jpg', 'data/a/y/2.PNG', 'data/a/y/notes.txt')
    section = look(train_dataloader=loader(type='UnlabelledFolder', data_root='data/a'))
    assert section.problems == []
    assert section.facts == [('train_dataloader.dataset', 'UnlabelledFolder, data/a: 2 files')]


def test_counting_stops() -> None:
    make(*(f'many/{i}.jpg' for i in range(ENOUGH + 5)))
    assert count(Path('many')) == ENOUGH
    assert counted(ENOUGH) == f'{ENOUGH} files or more'
    assert len(list(files_below(Path('many')))) == ENOUGH + 5


def test_folder_without_images() -> None:
    make('data/a/notes.txt')
    section = look(val_dataloader=loader(type='UnlabelledFolder', data_root='data/a'))
    (problem,) = section.problems
    assert problem.startswith('val_dataloader.dataset: the folder data/a (img_path) holds no image')
    assert 'set val_dataloader.dataset.data_root' in problem


def test_missing_split_and_the_same_split_twice() -> None:
    make('data/scenes/train/boat/1.jpg')
    same = loader(**{k: v for k, v in scenes('val').items() if k != 'pipeline'})
    section = look(
        train_dataloader=dict(dataset=scenes('train')), val_dataloader=same, test_dataloader=same
    )
    (problem,) = section.problems
    assert 'the folder data/scenes/val (img_path) does not exist' in problem


def test_data_sets_in_wrappers_are_found() -> None:
    make('data/a/1.jpg')
    inner = dict(type='UnlabelledFolder', data_root='data/a')
    wrapped = dict(type='RepeatDataset', times=2, dataset=inner)
    both = dict(type='ConcatDataset', datasets=[wrapped, {**inner, 'data_root': 'data/b'}])
    section = look(train_dataloader=dict(dataset=both))
    (fact,) = section.facts
    assert fact[0] == 'train_dataloader.dataset.datasets.0.dataset'
    (problem,) = section.problems
    assert 'no folder data/b' in problem


def test_arguments_that_do_not_fit() -> None:
    section = look(train_dataloader=loader(type='UnlabelledFolder', data_root='data/a', sise=2))
    (problem,) = section.problems
    assert problem.startswith('train_dataloader.dataset cannot be built (TypeError: ')
    assert 'sise' in problem


def test_imagenet_wants_all_classes() -> None:
    make('data/imagenet/train/n01440764/1.JPEG')
    dataset = loader(type='ImageNet', data_root='data/imagenet/', split='train')
    (problem,) = look(train_dataloader=dataset).problems
    assert 'data/imagenet/train has 1 folders and ImageNet has 1000 classes' in problem


def test_validation_may_lack_classes_that_training_has() -> None:
    make('data/a/train/ant/1.jpg', 'data/a/train/bee/1.jpg', 'data/a/val/bee/1.jpg')
    dataset = loader(type='LabelledFolder', data_root='data/a', data_prefix='val')
    assert not look(val_dataloader=dataset).problems
    make('data/a/val/cow/1.jpg')
    (problem,) = look(val_dataloader=dataset).problems
    assert 'cow' in problem and 'val_dataloader.dataset.train_prefix' in problem


def test_labels_need_folders() -> None:
    make('data/a/1.jpg')
    dataset = loader(type='CustomDataset', data_root='data/a', with_label=True)
    (problem,) = look(train_dataloader=dataset).problems
    assert 'data/a has no folders, and labels come from them' in problem
    assert 'train_dataloader.dataset.with_label=False' in problem


def test_list_that_names_absent_files() -> None:
    make('data/imagenet/train/a.JPEG')
    Path('data/imagenet/meta').mkdir()
    Path('data/imagenet/meta/train.txt').write_text('a.JPEG 0\nb c.JPEG 1\n')
    dataset = loader(type='ImageNet', data_root='data/imagenet/', split='train')
    (problem,) = look(train_dataloader=dataset).problems
    assert 'of the first 2 files that data/imagenet/meta/train.txt lists, 1 are not in' in problem
    assert '(b c.JPEG, ...)' in problem


def test_missing_list() -> None:
    make('data/a/1.jpg')
    dataset = loader(type='CustomDataset', data_root='data/a', ann_file='list.txt')
    (problem,) = look(train_dataloader=dataset).problems
    assert 'there is no annotation file data/a/list.txt' in problem


def test_remote_data_is_not_looked_at() -> None:
    section = look(train_dataloader=loader(type='UnlabelledFolder', data_root='s3://bucket/a'))
    assert section.problems == []
    (note,) = section.notes
    assert note == 'train_dataloader.dataset reads s3://bucket/a, which is not looked at.'


COCO = dict(type='mmdet.CocoDataset', data_root='data/coco/', ann_file='annotations/a.json',
            data_prefix=dict(img='train2017/'), pipeline=[])  # fmt: skip


def coco_file(*, names: list[str], category: str = 'person') -> None:
    make('data/coco/train2017/1.jpg')
    Path('data/coco/annotations').mkdir(exist_ok=True)
    content = dict(
        images=[dict(id=i, file_name=name) for i, name in enumerate(names)],
        annotations=[],
        categories=[dict(id=1, name=category)],
    )
    Path('data/coco/annotations/a.json').write_text(json.dumps(content))


def test_coco() -> None:
    coco_file(names=['1.jpg'])
    section = look(train_dataloader=dict(dataset=COCO))
    assert section.problems == []
    assert 'data/coco/train2017: 1 files, data/coco/annotations/a.json' in section.facts[0][1]


@pytest.mark.parametrize(
    ('names', 'category', 'sentence'),
    [
        (['1.jpg', '2.jpg'], 'person', '1 are not in data/coco/train2017/ (2.jpg, ...)'),
        (['1.jpg'], 'boat!', 'none of the 1 categories of data/coco/annotations/a.json (boat!'),
    ],
)
def test_coco_that_does_not_fit(names: list[str], category: str, sentence: str) -> None:
    coco_file(names=names, category=category)
    (problem,) = look(train_dataloader=dict(dataset=COCO)).problems
    assert sentence in problem


def test_coco_file_of_another_kind() -> None:
    make('data/coco/train2017/1.jpg')
    Path('data/coco/annotations').mkdir()
    Path('data/coco/annotations/a.json').write_text('[1')
    (problem,) = look(train_dataloader=dict(dataset=COCO)).problems
    assert 'data/coco/annotations/a.json is not a COCO annotation file (JSONDecodeError' in problem


def test_annotations_of_the_evaluator() -> None:
    metric = dict(type='mmdet.CocoMetric', ann_file='data/coco/annotations/val.json')
    (problem,) = look(val_evaluator=metric, test_evaluator=metric).problems
    assert problem.startswith('There is no annotation file data/coco/annotations/val.json, which')
    assert 'val_evaluator compares with' in problem


@pytest.mark.parametrize(
    ('image', 'sentence'),
    [
        ('1.jpg', None),
        ('2.jpg', '1 are not in data/ade/annotations/training (2.png, ...)'),
        ('3.bmp', 'no file in data/ade/images/training ends with .jpg'),
    ],
)
def test_segmentation_maps(image: str, sentence: str | None) -> None:
    make(f'data/ade/images/training/{image}', 'data/ade/annotations/training/1.png')
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    dataset = loader(type='mmseg.ADE20KDataset', data_root='data/ade', data_prefix=prefix)
    problems = look(train_dataloader=dataset).problems
    assert len(problems) == (sentence is not None)
    assert all(sentence in problem for problem in problems)
