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


def test_folders_and_pipelines_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'KNN\.train\.data_root'):
        build_labelled_dataset(config(tmp_path / 'nowhere'), key='KNN.train')
    (tmp_path / 'empty').mkdir()
    flat = write_folder(tmp_path / 'flat', {'': 3})
    single = write_folder(tmp_path / 'single', {'images': 3})
    good = write_folder(tmp_path / 'good', {'a': 1, 'b': 1})
    for settings, message in (
        (config(tmp_path / 'empty'), r'train\.data_root'),
        (config(flat), r'train\.data_root'),
        (config(flat, with_label=False), 'with_label'),
        (config(single), "'images'"),
        (config(good, pipeline=PIPELINE[:1]), 'PackInputs'),
    ):
        with pytest.raises(ValueError, match=message):
            build_labelled_dataset(settings, key='train')


def test_classes_must_agree(tmp_path: Path) -> None:
    train = build_labelled_dataset(
        config(write_folder(tmp_path / 'train', {'a': 2, 'b': 2})), key='train', max_samples=3
    )
    val = build_labelled_dataset(
        config(write_folder(tmp_path / 'val', {'a': 1, 'c': 1})), key='val'
    )
    check_same_classes(train, train)
    with pytest.raises(ValueError, match='b, c'):
        check_same_classes(train, val)
