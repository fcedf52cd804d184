"""Token relations against numpy, and TokenRelationHead on planted queries, keys and values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.half import HALVES
from scipy.special import softmax
from torch import Tensor, nn

from hgkd_mm.models.heads.token_relation import (
    TokenRelationHead,
    relation_divergence,
    relation_logits,
)
from hgkd_mm.models.outputs import LayerTokens, StudentOutput, TeacherOutput, TransformerOutput
from hgkd_mm.models.qkv import QKV

B, N, GRID = 2, 6, (2, 3)
H, C = 3, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(
    seed: int, heads: int = 2, channels: int = 4, index: Tensor | None = None, prefix: int = 1
) -> LayerTokens:
    number = N if index is None else index.shape[1]
    q, k, v = random(3, B, heads, prefix + number, channels, seed=seed)
    return LayerTokens(qkv=QKV(q=q, k=k, v=v), prefix=prefix, index=index)


def teacher(**layers: LayerTokens) -> TeacherOutput:
    tokens = random(B, 8, *GRID)
    valid = torch.ones(B, *GRID, dtype=torch.bool)
    return TeacherOutput(
        tokens, tokens.mean((2, 3)), valid, None, {int(k[1:]): v for k, v in layers.items()}
    )


def student(**layers: LayerTokens) -> TransformerOutput:
    return TransformerOutput(
        random(B, N, 8), None, None, {int(k[1:]): v for k, v in layers.items()}
    )


def head(**arguments) -> TokenRelationHead:
    return TokenRelationHead(**(dict(teacher='mim', teacher_layers=[3]) | arguments))


def test_sum_over_relations_and_mean_over_layers() -> None:
    s, t = (layer(1), layer(2)), (layer(3), layer(4))

    def kl(ours: LayerTokens, theirs: LayerTokens, a: str, b: str) -> Tensor:
        def logits(x: LayerTokens) -> Tensor:
            first, second = getattr(x.qkv, a)[:, :, 1:], getattr(x.qkv, b)[:, :, 1:]
            return first @ second.transpose(2, 3) / 2  # d = 4

        return relation_divergence(logits(ours), logits(theirs))

    expected = sum(
        kl(ours, theirs, *pair) for ours, theirs in zip(s, t, strict=True) for pair in ('qk', 'vv')
    )
    loss = head(student_layers=[0, 2], teacher_layers=[1, 5])(
        student(_0=s[0], _2=s[1]), teacher(_1=t[0], _5=t[1])
    )
    torch.testing.assert_close(loss, expected / 2)


def test_dropped_tokens_leave_the_teachers_relations_too() -> None:
    full = layer(1)
    index = torch.tensor([[0, 2, 5], [1, 3, 4]])
    rows = torch.cat([torch.zeros(B, 1, dtype=torch.long), index + 1], dim=1)
    where = rows[:, None, :, None].expand(-1, 2, -1, 4)
    q, k, v = (x.gather(2, where) for x in (full.qkv.q, full.qkv.k, full.qkv.v))
    kept = LayerTokens(qkv=QKV(q=q, k=k, v=v), prefix=1, index=index)
    loss = head(student_layers=[0], with_cls=True)(student(_0=kept), teacher(_3=full))
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_other_heads_and_widths_are_split_anew() -> None:
    s, t = layer(1, heads=3, channels=8), layer(2, heads=2, channels=6)
    loss = head(student_layers=[0], num_heads=4, relations=['kv'])(student(_0=s), teacher(_3=t))
    expected = relation_divergence(
        relation_logits(s.qkv.k[:, :, 1:], s.qkv.v[:, :, 1:], 4),
        relation_logits(t.qkv.k[:, :, 1:], t.qkv.v[:, :, 1:], 4),
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('visible_only', [False, True])
def test_on_a_decoded_map(visible_only: bool) -> None:
    index = torch.tensor([[0, 2, 5], [1, 3, 4]]) if visible_only else None
    build = dict(in_channels=5, embed_dim=8, teacher_layers=[3])
    relation = head(**build).double()
    relation.init_weights()
    decoded = random(B, 5, 4, 6, seed=7).requires_grad_()  # twice the token grid
    theirs = layer(3, index=index)
    out = StudentOutput(images=None, mask=None, maps=(), decoded=decoded)
    loss = relation(out, teacher(_3=theirs))

    pooled = nn.functional.avg_pool2d(decoded, 2)
    qkv = relation.projections[0](pooled).flatten(2).transpose(1, 2)
    if visible_only:
        qkv = qkv.gather(1, index.unsqueeze(-1).expand(-1, -1, 24))
    q, k, v = (x.unflatten(2, (2, 4)).transpose(1, 2) for x in qkv.split(8, dim=2))
    patches = QKV(*(x[:, :, 1:] for x in (theirs.qkv.q, theirs.qkv.k, theirs.qkv.v)))
    expected = relation_divergence(
        relation_logits(q, k, 2), relation_logits(patches.q, patches.k, 2)
    ) + relation_divergence(relation_logits(v, v, 2), relation_logits(patches.v, patches.v, 2))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert decoded.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(student_layers=[1, 2]), 'compares layers one by one'),
        (dict(in_channels=4, embed_dim=8, with_cls=True), 'a CNN has no class token'),
        (dict(student_layers=[1], relations=['qx']), "pairs of 'q', 'k' and 'v'"),
        (dict(student_layers=[1], weight=-1.0), 'weight'),
    ],
)
def test_refused_at_construction(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        head(**arguments)


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


@pytest.mark.parametrize('heads', [3, 2])
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


@pytest.mark.parametrize('dtype', HALVES)
def test_logits_are_not_rounded_under_autocast(dtype: torch.dtype) -> None:
    # Products of up to 1e5, more than float16 holds.
    a, b = (100 * random(B, H, N, C, seed=seed).to(dtype) for seed in (0, 1))
    with torch.autocast('cpu', dtype=dtype):
        logits = relation_logits(a, b, H)
    assert logits.dtype == torch.float32
    exact = a.double() @ b.double().transpose(2, 3) / C**0.5
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-2)
    # A softmax in half precision would be exactly zero in places.
    assert relation_divergence(logits.requires_grad_(), logits.flip(3)).isfinite()
