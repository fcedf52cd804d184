"""Diversity and discrimination of features, for networks with and without attention.

Features are (N, D), one row per image. All functions of them raise a ValueError for fewer than
two rows and for NaN or Inf.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def effective_rank(features: Tensor) -> float:
    r"""Effective rank of the centered features: the number of directions they spread over.

    .. math:: \exp\Big(-\sum_i p_i \log p_i\Big), \quad p_i = \sigma_i / \sum_j \sigma_j

    with the singular values of the matrix. 0: all rows are equal up to rounding; 1: all lie on a
    line (dimensional collapse); at most min(N - 1, D). Source: Roy and Vetterli, "The effective
    rank", EUSIPCO 2007; centering is ours, so that a mean that all images share does not count as
    a direction.
    """
    _check(features)
    rounding = torch.finfo(features.dtype).eps * max(features.shape)
    features = features.double()
    singular = torch.linalg.svdvals(features - features.mean(0))
    if singular.sum() <= rounding * features.norm():
        return 0.0
    return _entropy_rank(singular / singular.sum())


def rankme(features: Tensor) -> float:
    r"""RankMe: the effective rank of the features without centering; 0 if all are zero.

    .. math:: \exp\Big(-\sum_i p_i \log p_i\Big), \quad p_i = \sigma_i / \sum_j \sigma_j + 10^{-7}

    Source: Garrido et al., "RankMe", ICML 2023 (arXiv 2210.02885), from 25600 images there; a
    value from fewer images than dimensions is bounded by their number.
    """
    _check(features)
    singular = torch.linalg.svdvals(features.double())
    if not singular.sum():
        return 0.0
    return _entropy_rank(singular / singular.sum() + 1e-7)


def class_separability(features: Tensor, labels: Tensor) -> float:
    r"""Trace ratio of Fisher's criterion: scatter between classes over scatter within.

    .. math::
        J = \frac{\mathrm{tr}\, S_B}{\mathrm{tr}\, S_W}, \quad
        \mathrm{tr}\, S_B = \sum_c n_c \lVert \mu_c - \mu \rVert^2, \quad
        \mathrm{tr}\, S_W = \sum_i \lVert x_i - \mu_{c(i)} \rVert^2

    Invariant to rotation, shift and common scale; infinite if the images of each class have equal
    features and classes differ. Unrelated labels give about (C - 1) / (N - C), not 0. Source:
    Fukunaga, "Introduction to Statistical Pattern Recognition", 1990, chapter 10 (the criterion
    tr S_B / tr S_W).

    Args:
        features: (N, D).
        labels: (N,) class indices.

    Raises:
        ValueError: fewer than two classes, or no class of two images.
    """
    _check(features)
    labels = labels.to(features.device)
    classes, index, counts = labels.unique(return_inverse=True, return_counts=True)
    if not 2 <= len(classes) < len(labels):
        raise ValueError(
            f'Class separability compares images within classes and between them, but of '
            f'{len(features)} features with {len(labels)} labels {len(classes)} classes are seen.'
        )
    features = features.double()
    total = features.new_zeros(len(classes), features.shape[1]).index_add_(0, index, features)
    means = total / counts.unsqueeze(1)
    between = (counts.unsqueeze(1) * (means - features.mean(0)).square()).sum()
    within = (features - means[index]).square().sum()
    return (between / within).item()


def uniformity(features: Tensor, *, t: float = 2.0) -> float:
    r"""How evenly features, normalized here, spread over the sphere; lower is more even.

    .. math:: \log \underset{i < j}{\mathrm{mean}} \; e^{-t \lVert x_i - x_j \rVert^2}

    0: all equal. Source: Wang and Isola, ICML 2020 (arXiv 2005.10242), t = 2 there.
    """
    _check(features)
    units = F.normalize(features.double(), dim=1)
    return torch.pdist(units).square().mul(-t).exp().mean().log().item()


def alignment(features: Tensor, others: Tensor) -> float:
    r"""Mean squared distance of features, normalized here, of two views of the same images.

    .. math:: \mathrm{mean}_i \lVert x_i - y_i \rVert^2

    0: invariant to the change of view; 2: as far apart as independent features. Source: Wang and
    Isola, ICML 2020 (arXiv 2005.10242), alpha = 2 there.
    """
    _check(features)
    _check(others)
    first, second = (F.normalize(rows.double(), dim=1) for rows in (features, others))
    return (first - second).square().sum(1).mean().item()


def token_similarity(tokens: Tensor) -> Tensor:
    r"""Mean cosine similarity of two different positions of an image, (B,) float64.

    .. math::
        \frac{1}{n (n - 1)} \sum_{i \ne j} \cos(x_i, x_j)
        = \frac{\lVert \sum_i u_i \rVert^2 - n}{n (n - 1)}, \quad u_i = x_i / \lVert x_i \rVert

    1: all positions are alike (over-smoothing). Not finite for a single position. Source: Gong et
    al. 2021 (arXiv 2104.12753), for the tokens of a ViT; the positions of a CNN's map here as well.

    Args:
        tokens: (B, n, D).
    """
    count = tokens.shape[1]
    units = F.normalize(tokens.double(), dim=2)
    return (units.sum(1).square().sum(1) - units.square().sum((1, 2))) / (count * (count - 1))


def check_finite(features: Tensor, name: str = 'features') -> None:
    """Refuses (N, D) features with NaN or Inf, with a ValueError."""
    broken = int((~features.isfinite().all(1)).sum())
    if broken:
        raise ValueError(
            f'{broken} of {len(features)} {name} hold NaN or Inf: the weights of the network are '
            'broken. Go back to an earlier checkpoint.'
        )


def _check(features: Tensor) -> None:
    if len(features) < 2:
        raise ValueError(
            f'Features are (N, D) with one row for each of 2 or more images, got '
            f'{tuple(features.shape)}: use more images (--num).'
        )
    check_finite(features)


def _entropy_rank(shares: Tensor) -> float:
    return torch.special.entr(shares).sum().exp().item()
