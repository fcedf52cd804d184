"""FeatureDistillationHead against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hgkd_mm.models.heads import FeatureDistillationHead
from hgkd_mm.models.outputs import TeacherOutput, TransformerOutput

B, C, D, GRID = 2, 3, 5, (2, 3)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(index: torch.Tensor | None) -> tuple[TransformerOutput, TeacherOutput]:
    number = 6 if index is None else index.shape[1]
    student = TransformerOutput(random(B, number, C, seed=1), random(B, C, seed=2), index, {})
    tokens = random(B, D, *GRID, seed=3)
    valid = torch.ones(B, *GRID, dtype=torch.bool)
    return student, TeacherOutput(tokens, tokens.mean((2, 3)), valid, random(B, D, seed=4))


def numpy_loss(head: FeatureDistillationHead, index: np.ndarray | None) -> float:
    student, teacher = outputs(None if index is None else torch.from_numpy(index))
    weight, bias = (p.detach().numpy() for p in (head.project.weight, head.project.bias))
    targets = teacher.tokens.numpy().reshape(B, D, -1).transpose(0, 2, 1)
    if index is not None:
        targets = np.stack([t[i] for t, i in zip(targets, index, strict=True)])
    tokens = student.tokens.numpy()
    if head.with_cls:
        targets = np.concatenate([teacher.cls.numpy()[:, None], targets], 1)
        tokens = np.concatenate([student.cls.numpy()[:, None], tokens], 1)
    if head.target_norm:
        mean, var = targets.mean(-1, keepdims=True), targets.var(-1, keepdims=True)
        targets = (targets - mean) / np.sqrt(var + 1e-6)
    predicted = tokens @ weight.T + bias
    if head.criterion == 'cosine':
        norms = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(targets, axis=-1)
        return (1 - (predicted * targets).sum(-1) / norms).mean()
    error = np.abs(predicted - targets)
    if head.criterion == 'mse':
        return (error**2).mean()
    return np.where(error < head.beta, 0.5 * error**2 / head.beta, error - 0.5 * head.beta).mean()


@pytest.mark.parametrize('index', [None, np.array([[0, 2, 5], [1, 3, 4]])])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(),
        dict(beta=0.3, with_cls=False),
        dict(criterion='mse', target_norm=None),
        dict(criterion='cosine', target_norm='layer_norm'),
    ],
)
def test_against_numpy(arguments: dict, index: np.ndarray | None) -> None:
    head = FeatureDistillationHead(teacher='cl', in_channels=C, embed_dim=D, **arguments).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(head.project.weight)
    student, teacher = outputs(None if index is None else torch.from_numpy(index))
    assert head(student, teacher).item() == pytest.approx(numpy_loss(head, index), abs=1e-12)


def test_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="criterion of .* is 'far'"):
        FeatureDistillationHead(teacher='cl', in_channels=C, embed_dim=D, criterion='far')
