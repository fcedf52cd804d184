"""Figures of features against worked values and numpy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hgkd_mm.evaluation import (
    alignment,
    class_separability,
    effective_rank,
    rankme,
    token_similarity,
    uniformity,
)


def drawn(rows: int = 20, columns: int = 7, seed: int = 0) -> Tensor:
    spread = torch.arange(1, columns + 1) / columns
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * spread + 0.5


def entropy_rank(matrix: np.ndarray, eps: float) -> float:
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(matrix.T @ matrix), 1e-300, None))
    shares = singular / singular.sum() + eps
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_effective_rank_of_known_singular_values() -> None:
    # rows +-3 e1, +-1 e2: singular values 3 sqrt 2 and sqrt 2, so shares 3/4 and 1/4
    rows = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(rows) == pytest.approx(expected)
    assert effective_rank(rows + torch.tensor([5.0, -2, 9])) == pytest.approx(expected)
    assert effective_rank(10 * rows) == pytest.approx(expected)


def test_ranks_against_numpy() -> None:
    rows = drawn()
    matrix = rows.numpy().astype(np.float64)
    assert effective_rank(rows) == pytest.approx(entropy_rank(matrix - matrix.mean(0), 0))
    assert rankme(rows) == pytest.approx(entropy_rank(matrix, 1e-7))
    # a mean that all share is one strong direction, if it is not taken off
    assert rankme(rows + 9) < 2.2 and effective_rank(rows + 9) > 5


def test_ranks_of_collapsed_features() -> None:
    constant = torch.full((50, 9), 0.1) * torch.arange(1, 10)
    assert effective_rank(constant) == 0
    assert rankme(constant) == pytest.approx(1, abs=1e-4)
    line = constant * torch.linspace(1, 2, 50)[:, None]
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert rankme(torch.zeros(4, 3)) == effective_rank(torch.zeros(4, 3)) == 0


def test_class_separability_by_hand() -> None:
    # means 0 and 4, total mean 2: between 4 * 4 = 16, within 4 * 1 = 4
    rows = torch.tensor([[-1.0], [1.0], [3.0], [5.0]])
    labels = torch.tensor([7, 7, 2, 2])
    assert class_separability(rows, labels) == pytest.approx(4)
    assert class_separability(3 * rows + 8, labels) == pytest.approx(4)
    assert class_separability(torch.tensor([[0.0], [0], [1], [1]]), labels) == math.inf


def test_between_and_within_are_the_total() -> None:
    rows, labels = drawn(30), torch.arange(30) % 4
    matrix = rows.numpy().astype(np.float64)
    within = sum(((matrix[labels == c] - matrix[labels == c].mean(0)) ** 2).sum() for c in range(4))
    total = ((matrix - matrix.mean(0)) ** 2).sum()
    assert class_separability(rows, labels) == pytest.approx((total - within) / within)


def test_uniformity_and_alignment_by_hand() -> None:
    # unit vectors at right angles and opposite: squared distances 2, 4, 2
    rows = torch.tensor([[2.0, 0], [0, 5], [-1, 0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(rows) == pytest.approx(expected)
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0)
    turned = torch.tensor([[1.0, 0], [5, 0], [1, 0]])
    assert alignment(rows, rows * 3) == pytest.approx(0)
    assert alignment(rows, turned) == pytest.approx((0 + 2 + 4) / 3)


def test_token_similarity() -> None:
    tokens = drawn(24).reshape(2, 12, 7)
    got = token_similarity(tokens)
    for image in range(2):
        units = tokens[image].numpy().astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        cosines = (units @ units.T)[~np.eye(12, dtype=bool)]
        assert got[image].item() == pytest.approx(cosines.mean())
    same = tokens[:, :1].expand(-1, 12, -1)
    np.testing.assert_allclose(token_similarity(same).numpy(), 1)


def test_refusals() -> None:
    rows, broken = drawn(), drawn()
    broken[3, 2] = torch.nan
    for measure, arguments, message in (
        (effective_rank, (rows[:1],), r'\(1, 7\)'),
        (rankme, (broken,), '1 of 20 features'),
        (class_separability, (rows, torch.zeros(20)), '20 labels 1 classes'),
        (class_separability, (rows, torch.arange(20)), '20 labels 20 classes'),
        (alignment, (rows, broken), '1 of 20 features'),
    ):
        with pytest.raises(ValueError, match=message):
            measure(*arguments)
