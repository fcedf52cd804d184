"""Linear probe on frozen, pooled features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class LinearProbeResult:
    """Outcome of a linear probe.

    Attributes:
        top1: Accuracy on the validation set, in percent.
        inverse_regularisation: The chosen C of the logistic regression.
        held_out_top1: Accuracy of that C on the held-out part of the training
            set, in percent.
    """

    top1: float
    inverse_regularisation: float
    held_out_top1: float


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
    """Multinomial logistic regression on standardised features.

    Features are standardised with the statistics of the images that the
    regression is fitted to. C is chosen on a stratified held-out part of the
    training set (the largest, if several are equally good); the regression is then
    fitted to all of it. The validation set has no say. Meant for up to some
    100 000 images: full-batch L-BFGS in float64 on the CPU. ImageNet-size probes
    are trained with SGD instead.

    Args:
        train_features: (N, D).
        train_labels: (N,) class indices.
        val_features: (Q, D).
        val_labels: (Q,) class indices.
        candidates: Values of C (inverse L2 strength) to choose from.
        held_out: Share of the training set that chooses C.
        max_iter: L-BFGS iterations at most.
        seed: Of the split; the rest is deterministic.

    Returns:
        ``LinearProbeResult``.

    Raises:
        ValueError: Fewer than two classes, or too few images of a class to hold
            some out.
    """
    x, y = _as_float64(train_features), np.asarray(train_labels)
    _check_classes(y, held_out)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=max_iter))
    search = GridSearchCV(
        probe,
        {'logisticregression__C': sorted(candidates, reverse=True)},
        cv=StratifiedShuffleSplit(n_splits=1, test_size=held_out, random_state=seed),
    ).fit(x, y)
    return LinearProbeResult(
        top1=100.0 * float(search.score(_as_float64(val_features), np.asarray(val_labels))),
        inverse_regularisation=float(search.best_params_['logisticregression__C']),
        held_out_top1=100.0 * float(search.best_score_),
    )


def _as_float64(features: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(features, dtype=np.float64)


def _check_classes(labels: NDArray, held_out: float) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(
            f'A linear probe needs at least two classes, but the training set has '
            f'{len(classes)}. Check that the folder is sorted into one subfolder a class.'
        )
    images_held_out = int(np.ceil(held_out * len(labels)))
    if counts.min() < 2 or images_held_out < len(classes):
        raise ValueError(
            f'The linear probe holds out {held_out:.0%} of the training set, with every class '
            f'in both parts, but {len(labels)} images of {len(classes)} classes (class '
            f'{classes[counts.argmin()]} has {counts.min()}) are too few. Add labelled images.'
        )
