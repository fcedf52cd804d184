from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgkd_mm.evaluation import build_labelled_dataset, check_same_classes

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def write_folder(root: Path, classes: dict[str, int]) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(root / name / f'{index}.png')
    return root


def config(root: Path, **options: object) -> dict:
    return dict(type='mmpretrain.CustomDataset', data_root=str(root), pipeline=PIPELINE) | options


def test_random_choice_is_reproducible_and_spread_over_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {'cat': 20, 'dog': 20})
    whole = build_labelled_dataset(config(root), key='train')
    part = build_labelled_dataset(config(root), key='train', max_samples=10)
    again = build_labelled_dataset(config(root), key='train', max_samples=10)
    assert (len(whole), len(part)) == (40, 10)
    assert part.indices == again.indices == sorted(set(part.indices))
    labels = [int(part[i]['data_samples'].gt_label) for i in range(10)]
    assert set(labels) == {0, 1}


def test_missing_folder_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'KNN\.train.*KNN\.train\.data_root'):
        build_labelled_dataset(config(tmp_path / 'nowhere'), key='KNN.train')


def test_empty_flat_and_unlabelled_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='one subfolder a class'):
        build_labelled_dataset(config(tmp_path / 'empty'), key='train')
    flat = write_folder(tmp_path / 'flat', {'': 3})
    with pytest.raises(ValueError, match='one subfolder a class'):
        build_labelled_dataset(config(flat), key='train')
    with pytest.raises(ValueError, match='no labels'):
        build_labelled_dataset(config(flat, with_label=False), key='train')
    single = write_folder(tmp_path / 'single', {'images': 3})
    with pytest.raises(ValueError, match="one class .'images'"):
        build_labelled_dataset(config(single), key='train')


def test_pipeline_must_pack(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {'a': 1, 'b': 1})
    with pytest.raises(ValueError, match='PackInputs'):
        build_labelled_dataset(config(root, pipeline=PIPELINE[:1]), key='train')


def test_classes_must_agree(tmp_path: Path) -> None:
    train = build_labelled_dataset(
        config(write_folder(tmp_path / 'train', {'a': 2, 'b': 2})), key='train', max_samples=3
    )
    val = build_labelled_dataset(
        config(write_folder(tmp_path / 'val', {'a': 1, 'c': 1})), key='val'
    )
    check_same_classes(train, train)
    with pytest.raises(ValueError, match='in one only: b, c'):
        check_same_classes(train, val)
