from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from hgkd_mm.datasets.labelled_folder import stratified_share


@pytest.mark.parametrize(
    ('counts', 'share', 'expected'),
    [
        ([40, 20, 3], 0.1, [4, 2, 1]),
        ([40, 20, 3], 1.0, [40, 20, 3]),
        ([40, 20, 3], 0.99, [38, 19, 3]),
        ([40, 20, 3, 1], 0.6, [23, 12, 2, 1]),
    ],
)
def test_share_is_stratified(counts: list[int], share: float, expected: list[int]) -> None:
    labels = np.repeat(range(len(counts)), counts).tolist()
    found = Counter(labels[index] for index in stratified_share(labels, share))
    assert [found[label] for label in range(len(counts))] == expected


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


@pytest.mark.parametrize('share', [0.0, 1.5])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=f'--share .*{share}'):
        stratified_share([0, 1], share)
