"""Accuracy of frozen features: weighted k nearest neighbors, and a linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .representation import check_finite

# Entries of a similarity block, so that a block of queries takes 256 MiB in float32.
_BLOCK_ENTRIES = 2**26


def knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int | None = None,
) -> Tensor:
    """Class votes of the k most similar bank entries, weighted by similarity.

    ``score(c) = sum_{i in N_k} exp(s_i / tau) [y_i = c]``, with ``s_i`` the cosine similarity of
    the query to neighbor i. Source: InstDisc (Wu et al. 2018, section 3.4, tau = 0.07); k = 20 as
    in DINO (Caron et al. 2021, section 4.1). Both stated. Each row is scaled by
    ``exp(-max_i s_i / tau)``, which keeps small temperatures finite and changes no ranking.

    Args:
        queries: (Q, D) features, not necessarily normalized.
        bank: (N, D) features of the labelled reference images.
        bank_labels: (N,) class indices.
        num_classes: C.
        k: number of neighbors.
        temperature: tau.
        chunk_size: queries per block of similarities; by default one of some 256 MiB.

    Returns:
        (Q, C) float32 votes, on the device of the features.

    Raises:
        ValueError: k exceeds the bank, tau is not positive, or the features are not finite.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'k={k} neighbors are to vote: set k between 1 and the number of labelled images, '
            f'{len(bank)}.'
        )
    if temperature <= 0:
        raise ValueError(f'The temperature of the kNN vote must be positive, but is {temperature}.')
    check_finite(queries, 'query features')
    check_finite(bank, 'bank features')
    queries, bank = (F.normalize(features.float(), dim=1) for features in (queries, bank))
    bank_labels = bank_labels.to(bank.device)
    scores = []
    for chunk in queries.split(chunk_size or max(1, _BLOCK_ENTRIES // len(bank))):
        similarity, index = (chunk @ bank.T).topk(k, dim=1)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(chunk), num_classes)
        scores.append(votes.scatter_add_(1, bank_labels[index], weights))
    return torch.cat(scores)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy of `knn_scores` in percent, with the training set as the bank."""
    classes = int(train_labels.max()) + 1
    how = dict(num_classes=classes, k=k, temperature=temperature)
    scores = knn_scores(val_features, train_features, train_labels, **how)
    correct = scores.argmax(1) == val_labels.to(scores.device)
    return 100.0 * correct.float().mean().item()


@dataclass(frozen=True)
class LinearProbeResult:
    """Accuracies of a linear probe, in percent."""

    top1: float  # on the validation set
    inverse_regularization: float  # the chosen C of the logistic regression
    held_out_top1: float  # of that C, on the held-out part of the training set


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    val_features: ArrayLike,
    val_labels: ArrayLike,
    *,
    candidates: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    held_out: float = 0.2,
    max_iter: int = 1000,
    seed: int = 0,
) -> LinearProbeResult:
    """Multinomial logistic regression on standardized features.

    Features are standardized with the statistics of the images that the regression is fitted to.
    C is chosen on a stratified held-out part of the training set (the largest, if several are
    equally good); the regression is then fitted to all of it, without the validation set.
    Full-batch L-BFGS in float64 on the CPU, for up to some 100 000 images; probes of ImageNet's
    size are trained with SGD instead.

    Args:
        train_features: (N, D).
        train_labels: (N,) class indices.
        val_features: (Q, D).
        val_labels: (Q,) class indices.
        candidates: for C, the inverse L2 strength.
        held_out: share of the training set that chooses C.
        max_iter: L-BFGS iterations at most.
        seed: of the split; the rest is deterministic.

    Raises:
        ValueError: from scikit-learn: fewer than two classes, or too few images of a class.
    """
    x, y = np.asarray(train_features, np.float64), np.asarray(train_labels)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=max_iter)),
        {'logisticregression__C': sorted(candidates, reverse=True)},
        cv=StratifiedShuffleSplit(n_splits=1, test_size=held_out, random_state=seed),
    ).fit(x, y)
    accuracy = search.score(np.asarray(val_features, np.float64), np.asarray(val_labels))
    return LinearProbeResult(
        top1=100.0 * float(accuracy),
        inverse_regularization=float(search.best_params_['logisticregression__C']),
        held_out_top1=100.0 * float(search.best_score_),
    )
