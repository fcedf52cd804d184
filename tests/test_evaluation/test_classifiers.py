import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hgkd_mm.evaluation import knn_accuracy, knn_scores, linear_probe


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
    how = dict(num_classes=4, k=k, temperature=temperature, chunk_size=chunk_size)
    found = knn_scores(*map(torch.from_numpy, (queries, bank, labels)), **how).numpy()
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
    # a class that the bank lacks counts as wrong
    assert knn_accuracy(bank, torch.arange(4), bank, torch.tensor([0, 7, 2, 3]), k=1) == 75.0


def test_bad_input_is_refused() -> None:
    bank, labels = torch.eye(3), torch.arange(3)
    broken = bank.clone()
    broken[1, 2] = float('nan')
    for queries, settings, message in (
        (bank, dict(k=4), 'k=4'),
        (bank, dict(k=1, temperature=0.0), '0.0'),
        (broken, dict(k=1), '1 of 3 query features'),
    ):
        with pytest.raises(ValueError, match=message):
            knn_accuracy(bank, labels, queries, labels, **settings)


def gaussians(seed: int, per_class: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Three classes on the corners of a triangle, in 2 of 6 dimensions, badly scaled."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    noise = rng.normal(size=(len(labels), 6)) * spread
    features = np.concatenate([corners[labels], np.zeros((len(labels), 4))], 1) + noise
    scale = np.array([1e-3, 1e-3, 1.0, 1.0, 50.0, 50.0])
    return features * scale + 1000 * scale, labels


def test_equals_logistic_regression_on_standardized_features() -> None:
    # classes that are apart are found, whatever the scale of their features
    assert linear_probe(*gaussians(0, 60, 0.5), *gaussians(1, 40, 0.5)).top1 > 99
    train, labels = gaussians(0, 50, 2.0)
    val, val_labels = gaussians(1, 50, 2.0)
    result = linear_probe(train, labels, val, val_labels, candidates=[0.01])
    mean, std = train.mean(0), train.std(0)
    reference = LogisticRegression(C=0.01).fit((train - mean) / std, labels)
    expected = 100 * (reference.predict((val - mean) / std) == val_labels).mean()
    assert result.top1 == pytest.approx(expected)
    assert 60 < result.top1 < 99
    assert result.inverse_regularization == 0.01


def test_strength_is_chosen_on_the_training_set_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    features = np.concatenate([labels[:, None] * 1.5, np.zeros((80, 200))], 1)
    features = features + rng.normal(size=features.shape)
    chosen = [
        linear_probe(features, labels, features[:10], val_labels, candidates=[1e-3, 1e3])
        for val_labels in (labels[:10], 1 - labels[:10])
    ]
    assert chosen[0].inverse_regularization == chosen[1].inverse_regularization
    assert chosen[0].held_out_top1 == chosen[1].held_out_top1
    assert chosen[0].top1 == pytest.approx(100 - chosen[1].top1)


@pytest.mark.parametrize('labels', [np.zeros(12), np.array([0] * 11 + [1]), np.arange(12) // 2])
def test_too_few_classes_or_images_are_refused(labels: np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(12, 3))
    with pytest.raises(ValueError):
        linear_probe(features, labels, features, labels)
