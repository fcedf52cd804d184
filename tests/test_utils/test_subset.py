from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from sklearn.model_selection import train_test_split

from hgkd_mm.utils.subset import (
    annotation_lines,
    labelled_files,
    pick_listed,
    pick_share,
    stratified_share,
)

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {'n01': 40, 'n02': 20, 'n10': 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of ImageNet's layout, without pixels, and a file that is no image."""
    for name, count in COUNTS.items():
        (tmp_path / 'train' / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / 'train' / name / f'{name}_{index}.JPEG').touch()
    (tmp_path / 'train' / 'n01' / 'readme.txt').touch()
    return tmp_path


def test_labels_are_those_of_mmpretrain(data: Path) -> None:
    files = labelled_files(data)
    dataset = CustomDataset(data_root=str(data), data_prefix='train')
    theirs = {Path(info['img_path']): info['gt_label'] for info in dataset}
    assert {data / 'train' / path: label for path, label in files} == theirs
    assert len(files) == sum(COUNTS.values())


def test_the_meta_file_comes_first(data: Path) -> None:
    (data / 'meta').mkdir()
    (data / 'meta' / 'train.txt').write_text('b flat.JPEG 7\na.JPEG 3\n\n')
    assert labelled_files(data) == [('a.JPEG', 3), ('b flat.JPEG', 7)]


def test_share_is_stratified_and_seeded(data: Path) -> None:
    files = labelled_files(data)
    picked = pick_share(files, 0.1)
    assert set(picked) < set(files) and picked == sorted(picked)
    assert Counter(label for _, label in picked) == {0: 4, 1: 2, 2: 1}
    assert picked == pick_share(files[::-1], 0.1)
    assert picked != pick_share(files, 0.1, seed=1)
    assert pick_share(files, 1.0) == sorted(files)
    assert len(pick_share(files, 0.99)) == len(files) - len(COUNTS)
    alone = [*files, ('n11/n11_0.JPEG', 3)]
    assert Counter(label for _, label in pick_share(alone, 0.6)) == {0: 23, 1: 12, 2: 2, 3: 1}


def test_every_class_has_its_share() -> None:
    generator = np.random.default_rng(0)
    for share in (0.01, 0.05, 0.1, 1 / 3, 0.5, 0.9, 0.99):
        for seed in range(20):
            counts = generator.integers(1, 60, size=12)
            labels = generator.permutation(np.repeat(np.arange(12), counts)).tolist()
            picked = stratified_share(labels, share, seed=seed)
            assert picked == sorted(set(picked))
            found = Counter(labels[i] for i in picked)
            for label, count in enumerate(counts):
                assert 1 <= found[label] <= count
                assert abs(found[label] - share * count) <= 2


def test_balanced_classes_are_split_as_by_scikit_learn() -> None:
    labels = [i % 12 for i in range(600)]
    theirs, _ = train_test_split(range(600), train_size=0.05, random_state=3, stratify=labels)
    assert stratified_share(labels, 0.05, seed=3) == sorted(theirs)


def test_list_is_by_file_name(data: Path) -> None:
    files = labelled_files(data)
    picked = pick_listed(files, ['n10_2.JPEG\n', '', 'n01_0.JPEG'])
    assert annotation_lines(picked) == 'n01/n01_0.JPEG 0\nn10/n10_2.JPEG 2\n'


def test_refusals(data: Path, tmp_path: Path) -> None:
    files = labelled_files(data)
    with pytest.raises(ValueError, match=r'2 of the 3 listed images are not there.*n03_1.JPEG'):
        pick_listed(files, ['n03_1.JPEG', 'n03_2.JPEG', 'n01_1.JPEG'])
    with pytest.raises(ValueError, match='0 of the 0'):
        pick_listed(files, [''])
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f'and not {share}'):
            pick_share(files, share)
    with pytest.raises(FileNotFoundError, match='--data is the folder that holds train/'):
        labelled_files(tmp_path / 'typo')
    (tmp_path / 'empty' / 'train' / 'n01').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='has no images'):
        labelled_files(tmp_path / 'empty')


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, 'tools/make_subset.py', *map(str, words)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize(
    ('counts', 'share', 'percent'),
    [([4], 1, '100'), ([100, 100], 0.01, '1'), ([1000], 1e-3, '0.1')],
)
def test_file_is_named_after_its_share(
    counts: list[int], share: float, percent: str, tmp_path: Path
) -> None:
    (tmp_path / 'meta').mkdir()
    lines = [f'{label}/{i}.JPEG {label}' for label, n in enumerate(counts) for i in range(n)]
    (tmp_path / 'meta' / 'train.txt').write_text('\n'.join(lines))
    result = run('--data', tmp_path, '--share', share)
    assert result.returncode == 0, result.stderr
    written = tmp_path / 'meta' / f'train_{percent}pct.txt'
    assert len(written.read_text().splitlines()) == share * sum(counts)
    assert f' images ({percent} %)' in result.stdout


def test_tool_writes_what_the_config_reads(data: Path) -> None:
    result = run('--data', data, '--share', '0.1')
    assert result.returncode == 0, result.stderr
    out = data / 'meta' / 'train_11pct.txt'
    assert result.stdout == f'{out}: 7 of 63 images (11 %), 3 classes.\n'
    dataset = CustomDataset(
        data_root=str(data), data_prefix='train', ann_file='meta/train_11pct.txt'
    )
    assert [info['gt_label'] for info in dataset] == [0] * 4 + [1] * 2 + [2]
    assert all(Path(info['img_path']).is_file() for info in dataset)
