import math

import numpy as np
import pytest
import torch

from hgkd_mm.evaluation import knn_accuracy, knn_scores


def brute_force(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    classes: int,
    k: int,
    temperature: float,
) -> np.ndarray:
    """InstDisc's weighted vote, one query and one neighbour at a time, in float64."""
    scores = np.zeros((len(queries), classes))
    for row, query in enumerate(queries):
        cosine = [q @ query / np.linalg.norm(q) / np.linalg.norm(query) for q in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -cosine[i])[:k]
        for i in nearest:
            scores[row, labels[i]] += math.exp(cosine[i] / temperature)
    return scores


@pytest.mark.parametrize(('k', 'temperature'), [(1, 0.07), (20, 0.07), (50, 0.5)])
@pytest.mark.parametrize('chunk_size', [None, 1, 7])
def test_votes_equal_brute_force(k: int, temperature: float, chunk_size: int | None) -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(50, 6)), 3 * rng.normal(size=(16, 6))
    labels = rng.integers(0, 4, 50)
    expected = brute_force(queries, bank, labels, 4, k, temperature)
    found = knn_scores(
        torch.from_numpy(queries),
        torch.from_numpy(bank),
        torch.from_numpy(labels),
        num_classes=4,
        k=k,
        temperature=temperature,
        chunk_size=chunk_size,
    ).numpy()
    # Each row is known up to a factor; shares of the vote are not.
    np.testing.assert_allclose(
        found / found.sum(1, keepdims=True),
        expected / expected.sum(1, keepdims=True),
        rtol=1e-3,
        atol=1e-6,
    )


def test_accuracy_equals_brute_force() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(5, 8))
    labels, val_labels = rng.integers(0, 5, 200), rng.integers(0, 5, 80)
    bank = centres[labels] + 1.2 * rng.normal(size=(200, 8))
    queries = centres[val_labels] + 1.2 * rng.normal(size=(80, 8))
    expected = brute_force(queries, bank, labels, 5, 20, 0.07).argmax(1) == val_labels
    top1 = knn_accuracy(*map(torch.from_numpy, (bank, labels, queries, val_labels)))
    assert 30 < top1 < 95
    assert top1 == pytest.approx(100 * expected.mean())


def test_one_near_neighbour_outvotes_two_far_ones() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[5.0, 1.0]])
    assert knn_scores(query, bank, labels, num_classes=2, k=3).argmax() == 0
    assert knn_scores(query, bank, labels, num_classes=2, k=3, temperature=10.0).argmax() == 1


def test_small_temperature_stays_finite() -> None:
    bank = torch.eye(4)
    scores = knn_scores(bank, bank, torch.arange(4), num_classes=4, k=4, temperature=1e-4)
    assert torch.equal(scores, torch.eye(4))


def test_a_class_the_bank_lacks_counts_as_wrong() -> None:
    features = torch.eye(2)
    labels = torch.tensor([0, 1])
    assert knn_accuracy(features, labels, features, torch.tensor([0, 7]), k=1) == 50.0


def test_bad_input_is_refused() -> None:
    bank, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match='k=4'):
        knn_accuracy(bank, labels, bank, labels, k=4)
    with pytest.raises(ValueError, match='temperature'):
        knn_accuracy(bank, labels, bank, labels, k=1, temperature=0.0)
    broken = bank.clone()
    broken[1, 2] = float('nan')
    with pytest.raises(ValueError, match='1 of 3 query features'):
        knn_accuracy(bank, labels, broken, labels, k=1)
