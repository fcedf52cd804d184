"""Attention distance, and mutual information of queries and keys.

Source of both: naver-ai/cl-vs-mim, self_attention_analysis.ipynb (Park et al., ICLR 2023), which
drops the class token, adds a constant to every entry and divides rows by their sum. Stated, as
are the constants. Attention is (B, heads, N, N), rows of queries that sum to 1, with ``prefix``
class and register tokens in front, which are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Pair = tuple[int, int]


def patch_attention(attention: Tensor, *, prefix: int, eps: float = 0.0) -> Tensor:
    """Attention among patches, (B, heads, n, n) float64 with n = N - prefix, rows summing to 1.

    Args:
        attention: (B, heads, N, N).
        prefix: number of class and register tokens in front.
        eps: added to every entry.

    Raises:
        ValueError: there are fewer than two patches.
    """
    count = attention.shape[-1] - prefix
    if count < 2:
        raise ValueError(
            f'{prefix} of {attention.shape[-1]} tokens are prefix tokens, so {count} patches are '
            'left, and attention among patches needs 2 or more: use larger images (--size).'
        )
    patches = attention[..., prefix:, prefix:].double() + eps
    return patches / patches.sum(-1, keepdim=True)


def attention_distance(
    attention: Tensor, *, grid: Pair, patch_size: float, prefix: int = 1
) -> Tensor:
    r"""Average attention distance of each head, in pixels: small is local, large is global.

    .. math::
        d_h = \frac1n \sum_q \sum_k A_h[q, k] \, s \, \lVert (r_q, c_q) - (r_k, c_k) \rVert_2

    with patches at rows r and columns c and s pixels from one to the next.

    Args:
        attention: (B, heads, N, N).
        grid: (gh, gw) patches of an image, in raster order behind the prefix.
        patch_size: s.
        prefix: number of tokens in front.

    Returns:
        (B, heads) float64.
    """
    patches = patch_attention(attention, prefix=prefix, eps=1e-32)
    distances = patch_size * patch_distances(grid).to(patches.device)
    return (patches * distances).sum(-1).mean(-1)


def patch_distances(grid: Pair) -> Tensor:
    """(n, n) float64 Euclidean distances of patches in raster order; direct neighbors have 1."""
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in grid)
    places = torch.cartesian_prod(rows, columns)
    # not cdist, whose faster way by matrix products rounds
    return (places[:, None] - places[None]).square().sum(-1).sqrt()


def attention_nmi(attention: Tensor, *, prefix: int = 1) -> Tensor:
    r"""Normalized mutual information of queries and keys of each head, (B, heads) float64.

    .. math::
        \mathrm{NMI} = \frac{I(q, k)}{\sqrt{H(q) H(k)}}, \quad
        I = \sum_{q, k} p(q) A[q, k] \log \frac{A[q, k]}{p(k)}, \quad
        p(q) = \frac1n, \; p(k) = \sum_q p(q) A[q, k]

    0: all queries attend alike (attention collapse). 1: each attends to a key of its own.
    """
    given = patch_attention(attention, prefix=prefix, eps=1e-8)
    count = given.shape[-1]
    keys = given.mean(-2)
    information = (given * (given / keys.unsqueeze(-2)).log()).sum((-2, -1)) / count
    entropy_of_keys = -(keys * keys.log()).sum(-1)
    return information / (math.log(count) * entropy_of_keys).sqrt()
