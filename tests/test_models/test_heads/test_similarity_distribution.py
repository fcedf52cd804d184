"""L_sim against numpy."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.models.heads import SimilarityDistributionHead
from hgkd_mm.models.heads.similarity_distribution import pearson
from hgkd_mm.models.outputs import StudentOutput, TeacherOutput
from hgkd_mm.sparse import CellMask, sparsify

C, E = 4, 6


def build(**kwargs: object) -> SimilarityDistributionHead:
    torch.manual_seed(0)
    settings = dict(teacher='mim', in_channels=C, embed_dim=E, queue_size=10) | kwargs
    return MODELS.build(dict(type='SimilarityDistributionHead', **settings)).double()


def batch(seed: int, size: int = 3) -> tuple[StudentOutput, TeacherOutput]:
    """A last map of 4 x 4 under a 2 x 2 mask; embeddings with a large common direction."""
    generator = torch.Generator().manual_seed(seed)
    mask = CellMask.random(batch=size, grid=(2, 2), mask_ratio=0.5, generator=generator)
    last = torch.randn(size, C, 4, 4, generator=generator).double()
    embedding = torch.randn(size, E, generator=generator).double() + 3
    student = StudentOutput(
        images=torch.zeros(size, 3, 8, 8), mask=mask, maps=(sparsify(last, mask),), decoded=None
    )
    teacher = TeacherOutput(
        torch.zeros(size, E, 2, 2), embedding, torch.ones(size, 2, 2, dtype=torch.bool)
    )
    return student, teacher


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def student_vectors(head: SimilarityDistributionHead, student: StudentOutput) -> np.ndarray:
    dense = student.maps[-1].to_dense().numpy()
    visible = student.mask.at((4, 4)).numpy()
    pooled = np.stack([m[:, v].mean(1) for m, v in zip(dense, visible, strict=True)])
    first, _, second = head.projector
    hidden = pooled @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    out = np.maximum(hidden, 0) @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    return unit(out)


@pytest.mark.parametrize('own_entry', [False, True])
@pytest.mark.parametrize(
    ('center', 'norm', 'rank'),
    [
        (False, None, None),
        (True, None, None),
        (True, 'whiten', E),
        (True, dict(type='whiten', rank=2), 2),
    ],
)
def test_equals_numpy(
    center: bool, norm: str | dict | None, rank: int | None, own_entry: bool
) -> None:
    settings = dict(own_entry=own_entry, tau_s=0.3, tau_t=0.1, hidden_channels=5)
    head = build(center=center, target_norm=norm, **settings)
    head.queue.enqueue(torch.from_numpy(unit(batch(1, 9)[1].embedding.numpy())))
    student, teacher = batch(2)

    z_s = student_vectors(head, student)
    z_t = unit(teacher.embedding.numpy())
    entries = head.queue.stored().numpy()
    if center:
        mean = entries.mean(0)
        z_t, entries = z_t - mean, entries - mean
    if rank is not None:
        covariance = entries.T @ entries / len(entries)
        values, vectors = np.linalg.eigh(covariance + 0.02 * np.trace(covariance) / E * np.eye(E))
        values, vectors = values[-rank:] * rank / E, vectors[:, -rank:]
        inverse_root = (vectors / np.sqrt(values)) @ vectors.T
        z_t, entries = z_t @ inverse_root, entries @ inverse_root
    z_t, entries = unit(z_t), unit(entries)
    pairs, correlations = [], []
    for s, t in zip(z_s, z_t, strict=True):
        candidates = np.vstack([t[None], entries]) if own_entry else entries
        p_s, p_t = softmax(candidates @ s / 0.3), softmax(candidates @ t / 0.1)
        pairs.append((p_s, p_t))
        correlations.append(np.corrcoef(p_s, p_t)[0, 1])

    expected = np.array(pairs).transpose(1, 0, 2)
    for got, wanted in zip(head.distributions(student, teacher), expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-9)
    assert head.queue.num_stored == 9
    loss = head(student, teacher)
    assert loss.shape == ()
    np.testing.assert_allclose(loss.item(), 1 - np.mean(correlations), rtol=1e-9)


def test_queue_takes_the_batch_after_its_loss() -> None:
    head = build()
    student, teacher = batch(2)
    first = head(student, teacher)
    assert first.item() == 0
    np.testing.assert_allclose(
        head.queue.stored().numpy(), unit(teacher.embedding.numpy()), rtol=1e-12
    )
    second = head(*batch(3))
    assert second.item() > 0
    head.eval()(*batch(3))
    assert head.queue.num_stored == 6


@pytest.mark.parametrize('own_entry', [False, True])
def test_distributions_over_an_empty_queue_have_no_candidate_of_it(own_entry: bool) -> None:
    p_s, p_t = build(own_entry=own_entry).distributions(*batch(2))
    assert p_s.shape == p_t.shape == (3, int(own_entry))
    assert (p_s == 1).all() and (p_t == 1).all()


def test_loss_of_an_empty_queue_keeps_every_gradient() -> None:
    head = build()
    head(*batch(2)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in head.parameters())


def test_backward_after_the_queue_was_filled() -> None:
    head = build(center=False)
    head.queue.enqueue(torch.randn(10, E).double())
    before = [p.clone() for p in head.parameters()]
    head(*batch(2)).backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_float32_is_enough_for_the_full_queue() -> None:
    """65536 nearly equal similarities: each probability deviates from 1.5e-5 by about 1 %."""
    torch.manual_seed(0)
    size = 65536
    entries = torch.nn.functional.normalize(torch.ones(1, E) + 0.02 * torch.randn(size, E), dim=1)
    student, teacher = batch(2)
    pooled = student.maps[0].to_dense()
    losses = []
    for dtype in (torch.float32, torch.float64):
        head = build(queue_size=size, center=False).to(dtype).eval()
        head.queue.enqueue(entries)
        student.maps = (sparsify(pooled.to(dtype), student.mask),)
        teacher.embedding = teacher.embedding.to(dtype)
        losses.append(head(student, teacher).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert 0.01 < losses[1] < 1.99


def test_float32_under_autocast() -> None:
    head = build().float().eval()
    head.queue.enqueue(batch(1, 10)[1].embedding)
    student, teacher = batch(2)
    student.maps = (sparsify(student.maps[0].to_dense().float(), student.mask),)
    teacher.embedding = teacher.embedding.float()
    exact = head(student, teacher)
    with torch.autocast('cpu', torch.bfloat16):
        loss = head(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0, atol=0)


def test_pearson() -> None:
    a = np.random.default_rng(0).normal(size=(3, 7))
    b = np.random.default_rng(1).normal(size=(3, 7))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    got = pearson(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    moved = pearson(torch.from_numpy(5 * a + 2), torch.from_numpy(b))
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-12)
    assert pearson(torch.ones(1, 4), torch.rand(1, 4)).item() == 0


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(tau_t=-1), 'tau_t=-1'),
        (dict(queue_size=1), 'at least 2'),
        (dict(target_norm='layer_norm'), "target_norm .* 'layer_norm'"),
        (dict(target_norm='whiten', center=False), 'center=True'),
    ],
)
def test_refuses_bad_settings(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityDistributionHead(**(dict(teacher='mim', in_channels=C, embed_dim=E) | kwargs))
