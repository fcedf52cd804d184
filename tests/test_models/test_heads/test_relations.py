"""Token relations against plain numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.half import HALVES
from scipy.special import softmax
from torch import Tensor

from hgkd_mm.models.heads.token_relation import at_positions, relation_divergence, relation_logits
from hgkd_mm.models.outputs import LayerTokens
from hgkd_mm.models.qkv import QKV

B, H, N, C = 2, 3, 5, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy_relation(a: Tensor, b: Tensor, heads: int) -> np.ndarray:
    """(B, heads, N, N), by loops."""
    a, b = (x.numpy().transpose(0, 2, 1, 3).reshape(B, N, -1) for x in (a, b))
    d = a.shape[2] // heads
    out = np.zeros((B, heads, N, N))
    for image in range(B):
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            out[image, head] = softmax(a[image, :, part] @ b[image, :, part].T / d**0.5, axis=1)
    return out


@pytest.mark.parametrize('heads', [3, 1, 2, 6])
def test_relations_against_numpy_with_heads_split_anew(heads: int) -> None:
    a, b = random(B, H, N, C), random(B, H, N, C, seed=1)
    ours = relation_logits(a, b, heads).softmax(-1)
    np.testing.assert_allclose(ours.numpy(), numpy_relation(a, b, heads), atol=1e-12)
    torch.testing.assert_close(ours.sum(-1), torch.ones(B, heads, N, dtype=torch.float64))


def test_divergence_against_numpy() -> None:
    student, teacher = random(B, H, N, N), random(B, H, N, N, seed=1)
    s, t = softmax(student.numpy(), axis=-1), softmax(teacher.numpy(), axis=-1)
    expected = (t * np.log(t / s)).sum(-1).mean()
    assert relation_divergence(student, teacher).item() == pytest.approx(expected, abs=1e-12)
    assert relation_divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-12)


def test_divergence_goes_from_teacher_to_student() -> None:
    # KL((1, 0) || (1/2, 1/2)) = ln 2, the other way round it has no bound.
    teacher, student = torch.tensor([[[[40.0, -40.0]]]]), torch.zeros(1, 1, 1, 2)
    assert relation_divergence(student, teacher).item() == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_gives_no_infinity(dtype: torch.dtype) -> None:
    # Logits of some hundred: a softmax in half precision would be exactly zero in places.
    a = 30 * random(1, 2, 6, 8).to(dtype).requires_grad_()
    teacher = 30 * random(1, 2, 6, 8, seed=1).to(dtype)
    loss = relation_divergence(relation_logits(a, a, 2), relation_logits(teacher, teacher, 2))
    (gradient,) = torch.autograd.grad(loss, a)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert loss.dtype == torch.float32


@pytest.mark.parametrize('dtype', HALVES)
def test_logits_are_not_rounded_under_autocast(dtype: torch.dtype) -> None:
    # Products of up to 1e5, more than float16 holds.
    a, b = (100 * random(B, H, N, C, seed=seed).to(dtype) for seed in (0, 1))
    with torch.autocast('cpu', dtype=dtype):
        logits = relation_logits(a, b, H)
    assert logits.dtype == torch.float32
    exact = a.double() @ b.double().transpose(2, 3) / C**0.5
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-2)


def test_positions_take_rows_and_columns() -> None:
    q = random(B, H, 1 + 6, C)
    tokens = LayerTokens(qkv=QKV(q=q, k=q + 1, v=q + 2), prefix=1)
    index = torch.tensor([[0, 3, 5], [1, 2, 4]])
    kept = at_positions(tokens, index, with_cls=True)
    whole = q @ (q + 1).transpose(2, 3)
    ours = kept.q @ kept.k.transpose(2, 3)
    for image in range(B):
        rows = torch.cat([torch.zeros(1, dtype=torch.long), index[image] + 1])
        torch.testing.assert_close(ours[image], whole[image][:, rows][:, :, rows])
    without = at_positions(tokens, index, with_cls=False)
    assert torch.equal(without.v, kept.v[:, :, 1:])
    assert torch.equal(at_positions(tokens, None, with_cls=True).v, q + 2)
