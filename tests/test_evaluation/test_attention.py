"""Attention distance and NMI against worked values and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hgkd_mm.evaluation import attention_distance, attention_nmi, patch_attention, patch_distances

GRID, PATCH = (3, 4), 16
N = 12


def with_prefix(patches: Tensor, prefix: int) -> Tensor:
    """(n, n) attention of patches as a part of rows in which prefix tokens take one half."""
    full = torch.full((1, 1, N + prefix, N + prefix), 0.5 / max(prefix, 1))
    full[..., prefix:, prefix:] = patches * (0.5 if prefix else 1)
    full[..., :prefix, :] = 1 / (N + prefix)
    return full


def drawn(batch: int = 2, heads: int = 3, tokens: int = N + 1) -> Tensor:
    logits = torch.randn(batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(0))
    return (2 * logits).softmax(-1)


@pytest.mark.parametrize('prefix', [0, 1, 5])
def test_prefix_tokens_do_not_count(prefix: int) -> None:
    patches = drawn(1, 1, N)[0, 0]
    got = patch_attention(with_prefix(patches, prefix), prefix=prefix)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got[0, 0].numpy(), patches.numpy(), atol=1e-6)


def test_identity_uniform_and_collapse() -> None:
    identity = with_prefix(torch.eye(N), 1)
    assert attention_distance(identity, grid=GRID, patch_size=PATCH).item() == pytest.approx(0)
    # off the diagonal 1e-8 is added, which takes a little off 1
    assert attention_nmi(identity).item() == pytest.approx(1, abs=1e-5)
    uniform = with_prefix(torch.full((N, N), 1 / N), 1)
    assert attention_nmi(uniform).item() == pytest.approx(0, abs=1e-12)
    distances = patch_distances(GRID)
    pairs = [[math.dist((i // 4, i % 4), (j // 4, j % 4)) for i in range(N)] for j in range(N)]
    np.testing.assert_allclose(distances.numpy(), pairs)
    got = attention_distance(uniform, grid=GRID, patch_size=PATCH)
    assert got.item() == pytest.approx(PATCH * np.mean(pairs))
    # all queries have one key
    one = torch.zeros(N, N)
    one[:, 5] = 1
    assert attention_nmi(with_prefix(one, 1)).item() == pytest.approx(0, abs=1e-9)


def test_a_shift_by_one_patch_is_the_patch_size() -> None:
    shift = torch.zeros(N, N)
    for row in range(3):
        for column in range(4):
            # the last column looks back, all others ahead
            shift[4 * row + column, 4 * row + (column + 1 if column < 3 else 2)] = 1
    distance = attention_distance(with_prefix(shift, 1), grid=GRID, patch_size=PATCH).item()
    assert distance == pytest.approx(PATCH)
    # down by two rows and left by one
    knight = torch.eye(N)
    knight[3], knight[3, 10] = 0, 1
    distance = attention_distance(with_prefix(knight, 1), grid=GRID, patch_size=PATCH).item()
    assert distance == pytest.approx(PATCH * math.sqrt(5) / N)


def test_queries_that_share_a_key_in_pairs() -> None:
    """n / 2 keys, each for two queries: I = H(k) = log(n / 2), so NMI = sqrt(that / log n)."""
    pairs = torch.eye(N // 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    pairs[:, 1::2] = 0
    expected = math.sqrt(math.log(N / 2) / math.log(N))
    assert attention_nmi(with_prefix(pairs, 1)).item() == pytest.approx(expected, abs=1e-5)


def test_of_each_image_and_head_as_in_loops() -> None:
    attention = drawn()
    distance = attention_distance(attention, grid=GRID, patch_size=PATCH)
    nmi = attention_nmi(attention)
    assert distance.shape == nmi.shape == (2, 3)
    for image in range(2):
        for head in range(3):
            rows = attention[image, head, 1:, 1:].numpy().astype(np.float64)
            far = rows / rows.sum(1, keepdims=True)
            expected = np.mean([
                sum(far[q, k] * PATCH * math.hypot(q // 4 - k // 4, q % 4 - k % 4)
                    for k in range(N)) for q in range(N)
            ])  # fmt: skip
            assert distance[image, head].item() == pytest.approx(expected, rel=1e-9)

            given = rows + 1e-8
            given /= given.sum(1, keepdims=True)
            joint = given / N
            p_q, p_k = joint.sum(1), joint.sum(0)
            mutual = np.sum(joint * np.log(joint / np.outer(p_q, p_k)))
            h_q, h_k = (-np.sum(p * np.log(p)) for p in (p_q, p_k))
            expected = mutual / np.sqrt(h_q * h_k)
            assert nmi[image, head].item() == pytest.approx(expected, rel=1e-9)


def test_half_precision_is_taken_up() -> None:
    half = attention_nmi(drawn().bfloat16())
    torch.testing.assert_close(half, attention_nmi(drawn()), rtol=0.02, atol=0)


def test_a_single_patch_is_refused() -> None:
    with pytest.raises(ValueError, match='--size'):
        attention_nmi(drawn(tokens=2))
