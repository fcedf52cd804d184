import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hgkd_mm.evaluation import linear_probe


def gaussians(seed: int, per_class: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Three classes on the corners of a triangle, in 2 of 6 dimensions, badly scaled."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    noise = rng.normal(size=(len(labels), 6)) * spread
    features = np.concatenate([corners[labels], np.zeros((len(labels), 4))], 1) + noise
    scale = np.array([1e-3, 1e-3, 1.0, 1.0, 50.0, 50.0])
    return features * scale + 1000 * scale, labels


def test_separable_classes_are_found_whatever_their_scale() -> None:
    result = linear_probe(*gaussians(0, 60, 0.5), *gaussians(1, 40, 0.5))
    assert result.top1 > 99


def test_equals_logistic_regression_on_standardised_features() -> None:
    train, labels = gaussians(0, 50, 2.0)
    val, val_labels = gaussians(1, 50, 2.0)
    result = linear_probe(train, labels, val, val_labels, candidates=[0.01])
    mean, std = train.mean(0), train.std(0)
    reference = LogisticRegression(C=0.01).fit((train - mean) / std, labels)
    expected = 100 * (reference.predict((val - mean) / std) == val_labels).mean()
    assert result.top1 == pytest.approx(expected)
    assert 60 < result.top1 < 99
    assert result.inverse_regularisation == 0.01


def test_strength_is_chosen_on_the_training_set_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    features = np.concatenate([labels[:, None] * 1.5, np.zeros((80, 200))], 1)
    features = features + rng.normal(size=features.shape)
    chosen = [
        linear_probe(features, labels, features[:10], val_labels, candidates=[1e-3, 1e3])
        for val_labels in (labels[:10], 1 - labels[:10])
    ]
    assert chosen[0].inverse_regularisation == chosen[1].inverse_regularisation
    assert chosen[0].held_out_top1 == chosen[1].held_out_top1
    assert chosen[0].top1 == pytest.approx(100 - chosen[1].top1)


def test_same_seed_same_result() -> None:
    data = (*gaussians(0, 40, 3.0), *gaussians(1, 40, 3.0))
    assert linear_probe(*data, seed=1) == linear_probe(*data, seed=1)


def test_too_few_classes_or_images_are_refused() -> None:
    features = np.random.default_rng(0).normal(size=(12, 3))
    with pytest.raises(ValueError, match='at least two classes'):
        linear_probe(features, np.zeros(12), features, np.zeros(12))
    lonely = np.array([0] * 11 + [1])
    with pytest.raises(ValueError, match='class 1 has 1'):
        linear_probe(features, lonely, features, lonely)
    many = np.arange(12) // 2
    with pytest.raises(ValueError, match='6 classes'):
        linear_probe(features, many, features, many)
