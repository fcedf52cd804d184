"""Class folders have one numbering in all splits, whatever a split lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS
from PIL import Image
from torch.utils.data import Subset

from hgkd_mm.datasets import LabelledFolder
from hgkd_mm.engine import OtherClassesError, SameClassesHook
from hgkd_mm.evaluation import build_labelled_dataset, check_same_classes

CONFIGS = Path(__file__).parents[2] / 'configs'
CLASSES = ('ant', 'bee', 'cat', 'dog')
IMAGENET = ('r50_ft300_in1k', 'r50_linear_in1k', 'r50_semi-1pct_in1k', 'vit-b_ft100_in1k')


@pytest.fixture(autouse=True)
def mmpretrain_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Four classes for training, three of them for validation."""
    for split, names in (('train', CLASSES), ('val', ('ant', 'cat', 'dog'))):
        for name in names:
            write(tmp_path / split / name)
    return tmp_path


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / 'a.jpg')


def labels(dataset: dict, root: Path) -> dict[str, int]:
    built = DATASETS.build(dict(dataset, data_root=str(root)))
    found = [built.get_data_info(index) for index in range(len(built))]
    return {Path(info['img_path']).parent.name: int(info['gt_label']) for info in found}


def own_classes(folder: Path) -> Config:
    text = (CONFIGS.parent / 'docs/finetuning.md').read_text().split('<!-- own -->')[1]
    leaf = folder / 'leaf.py'
    leaf.write_text(text.split('```')[1].split('\n', 1)[1].replace("'./", f"'{CONFIGS}/cls/"))
    return Config.fromfile(leaf)


@pytest.mark.parametrize('name', ['own', 'r18_scenes', 'vit_scenes'])
def test_validation_is_numbered_as_training(name: str, animals: Path) -> None:
    config = own_classes(animals) if name == 'own' else Config.fromfile(CONFIGS / f'cls/{name}.py')
    assert labels(config.train_dataloader.dataset, animals) == dict(ant=0, bee=1, cat=2, dog=3)
    for loader in {'val_dataloader', 'test_dataloader'} & set(config):
        assert labels(config[loader].dataset, animals) == dict(ant=0, cat=2, dog=3)
    write(animals / 'val' / 'cow')
    with pytest.raises(FileNotFoundError, match=r'cow.*LabelledFolder\.train_prefix'):
        labels(config.val_dataloader.dataset, animals)


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet_too(name: str, animals: Path) -> None:
    config = Config.fromfile(CONFIGS / f'cls/{name}.py')
    assert 'hgkd_mm.datasets' in config.custom_imports.imports
    for loader in ('val_dataloader', 'test_dataloader'):
        dataset = dict(config[loader].dataset, metainfo=dict(classes=CLASSES))
        assert labels(dataset, animals) == dict(ant=0, cat=2, dog=3)
        with pytest.raises(ValueError, match=r' 4 .* 1000 .*\.train_prefix'):
            labels(config[loader].dataset, animals)


def test_an_annotation_file_has_its_own_numbers(animals: Path) -> None:
    (animals / 'val.txt').write_text('cat/a.jpg 7\n')
    dataset = dict(type='LabelledFolder', data_prefix='val', ann_file='val.txt')
    assert labels(dataset, animals) == dict(cat=7)
    (animals / 'val' / '.cache').mkdir()  # an empty folder is no class
    del dataset['ann_file']
    assert labels(dataset, animals) == dict(ant=0, cat=2, dog=3)


def test_missing_training_folder_names_the_key(animals: Path) -> None:
    dataset = dict(type='LabelledFolder', data_prefix='val', train_prefix='training')
    with pytest.raises(FileNotFoundError, match=r'LabelledFolder\.train_prefix'):
        labels(dataset, animals)


@pytest.mark.parametrize('name', ['datasets/scenes_cls.py', 'imagenet_knn.py'])
def test_knn_votes_for_the_same_numbers(name: str, animals: Path) -> None:
    config = Config.fromfile(CONFIGS / '_base_' / name)
    if 'knn_hook' in config:
        both = [config.knn_hook[f'{split}_dataset'] for split in ('train', 'val')]
        both = [dict(dataset, metainfo=dict(classes=CLASSES)) for dataset in both]
    else:
        both = [config.cls_train_dataset, config.cls_val_dataset]
    train, val = (
        build_labelled_dataset(dict(dataset, data_root=str(animals)), key='k') for dataset in both
    )
    check_same_classes(train, val)
    assert val.get_gt_labels().tolist() == [0, 2, 3]
    assert [int(val[index]['data_samples'].gt_label) for index in range(3)] == [0, 2, 3]


def test_knn_refuses_plain_folders_that_differ(animals: Path) -> None:
    (animals / 'val' / 'cow').mkdir()
    # names as many as folders, as mmpretrain's ImageNet has, hide which folders they are
    train, val = (
        CustomDataset(data_root=str(animals), data_prefix=split, metainfo=dict(classes=CLASSES))
        for split in ('train', 'val')
    )
    with pytest.raises(ValueError, match='bee, cow'):
        check_same_classes(train, val)


def test_a_training_whose_validation_has_other_numbers_stops(animals: Path) -> None:
    train, val = (
        CustomDataset(data_root=str(animals), data_prefix=split) for split in ('train', 'val')
    )
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=train),
        val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=val)),
    )
    for dataset in (train, Subset(train, [0]), RepeatDataset(train, 2), ConcatDataset([train])):
        runner.train_dataloader.dataset = dataset
        with pytest.raises(OtherClassesError, match=r"bee\).*type='LabelledFolder' if val_dataloa"):
            SameClassesHook().before_train(runner)
    runner.val_loop.dataloader.dataset = LabelledFolder(data_root=str(animals), data_prefix='val')
    SameClassesHook().before_train(runner)
    # numbers of a file, and names of its own, as ImageNet's
    (animals / 'val.txt').write_text('cat/a.jpg 2\n')
    names = dict(metainfo=dict(classes=('An ant', 'A bee', 'A cat', 'A dog')))
    listed = dict(data_root=str(animals), data_prefix='val', ann_file='val.txt', **names)
    runner.val_loop.dataloader.dataset = CustomDataset(**listed)
    SameClassesHook().before_train(runner)
    runner.val_loop = None
    SameClassesHook().before_train(runner)
