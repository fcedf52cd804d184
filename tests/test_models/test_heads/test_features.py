"""L_feat of a CNN student against numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import Tensor

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.models.heads import FeatureImitationHead
from hgkd_mm.models.heads.base import Partners
from hgkd_mm.models.outputs import StudentOutput, TeacherOutput
from hgkd_mm.sparse import CellMask

B, C, D = 2, 3, 5


def build(**kwargs: object) -> FeatureImitationHead:
    torch.manual_seed(0)
    settings = dict(teacher='mim', in_channels=C, embed_dim=D) | kwargs
    return MODELS.build(dict(type='FeatureImitationHead', **settings)).double()


def outputs(
    size: tuple[int, int], valid: Tensor | None = None
) -> tuple[StudentOutput, TeacherOutput]:
    """A decoded map of ``size``, a 2 x 2 mask with different counts, 4 x 4 tokens."""
    torch.manual_seed(3)
    visible = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [0, 0]]]).bool()
    tokens = torch.randn(B, D, 4, 4).double() * torch.arange(1, D + 1).view(1, D, 1, 1)
    valid = torch.ones(B, 4, 4, dtype=torch.bool) if valid is None else valid
    student = StudentOutput(
        images=torch.zeros(B, 3, 16, 16),
        mask=CellMask(visible),
        maps=(),
        decoded=torch.randn(B, C, *size).double().requires_grad_(),
    )
    return student, TeacherOutput(tokens * valid.unsqueeze(1), torch.zeros(B, D), valid)


def reference(
    head: FeatureImitationHead,
    decoded: np.ndarray,
    teacher: TeacherOutput,
    counted: np.ndarray,
    normalise: bool,
) -> float:
    """Position by position, on a decoded map that already has the token grid."""
    weight = head.project.weight.detach().numpy()[:, :, 0, 0]
    bias = head.project.bias.detach().numpy()
    tokens = teacher.tokens.numpy()
    total = 0.0
    for b, i, j in zip(*np.nonzero(counted), strict=True):
        target = tokens[b, :, i, j]
        if normalise:
            target = (target - target.mean()) / np.sqrt(target.var() + 1e-6)
        total += np.sum((weight @ decoded[b, :, i, j] + bias - target) ** 2)
    return total / (counted.sum() * D)


@pytest.mark.parametrize('target_norm', ['layer_norm', None])
@pytest.mark.parametrize('positions', ['all', 'masked', 'visible'])
def test_equals_numpy(positions: str, target_norm: str | None) -> None:
    head = build(positions=positions, target_norm=target_norm)
    student, teacher = outputs((4, 4))
    visible = np.repeat(np.repeat(student.mask.visible.numpy(), 2, 1), 2, 2)
    counted = {'all': np.ones_like(visible), 'masked': ~visible, 'visible': visible}[positions]
    expected = reference(
        head, student.decoded.detach().numpy(), teacher, counted, target_norm is not None
    )
    loss = head(student, teacher)
    assert loss.shape == ()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)


@pytest.mark.parametrize('positions', ['all', 'visible'])
def test_counts_only_what_the_teacher_computed(positions: str) -> None:
    student, _ = outputs((4, 4))
    valid = student.mask.at((4, 4)).clone()
    valid[0, 0, 0] = False
    student, teacher = outputs((4, 4), valid)
    head = build(positions=positions)
    expected = reference(head, student.decoded.detach().numpy(), teacher, valid.numpy(), True)
    loss = head(student, teacher)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)
    loss.backward()
    assert student.decoded.grad.abs().sum(1).bool().equal(valid)


def test_finer_map_is_averaged_over_each_token() -> None:
    head = build()
    student, teacher = outputs((8, 12))
    decoded = student.decoded.detach().numpy().reshape(B, C, 4, 2, 4, 3).mean((3, 5))
    expected = reference(head, decoded, teacher, np.ones((B, 4, 4), bool), True)
    np.testing.assert_allclose(head(student, teacher).item(), expected, rtol=1e-12)


def test_coarser_map_is_interpolated() -> None:
    head = build()
    student, teacher = outputs((2, 2))
    # Bilinear, pixel centres aligned: weights of the two source rows for the four target rows.
    rows = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    decoded = np.einsum('ih,bchw,jw->bcij', rows, student.decoded.detach().numpy(), rows)
    expected = reference(head, decoded, teacher, np.ones((B, 4, 4), bool), True)
    np.testing.assert_allclose(head(student, teacher).item(), expected, rtol=1e-12)


def test_nothing_to_imitate_is_zero_not_nan() -> None:
    student, teacher = outputs((4, 4), torch.zeros(B, 4, 4, dtype=torch.bool))
    head = build()
    loss = head(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert head.project.weight.grad.abs().sum() == 0


def test_float32_under_autocast() -> None:
    head = build().float()
    student, teacher = outputs((4, 4))
    student.decoded = student.decoded.detach().float()
    teacher.tokens = teacher.tokens.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        loss = head(student, teacher)
    assert loss.dtype == torch.float32
    exact = head(student, teacher)
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0)


def test_sizes_that_do_not_fit_are_refused() -> None:
    student, teacher = outputs((6, 6))
    with pytest.raises(ValueError, match=r"6 x 6 and the 4 x 4 tokens of teacher 'mim'.*out_strid"):
        build()(student, teacher)


def test_hidden_tokens_of_a_teacher_that_drops_them_are_refused() -> None:
    teacher = SimpleNamespace(teacher_view='visible')
    with pytest.raises(ValueError, match=r'model\.heads\.feat\.positions'):
        build(positions='masked').check(Partners('model.heads.feat', None, teacher))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(positions='hidden'), "'hidden', expected one of 'all', 'masked', 'visible'"),
        (dict(target_norm='batch'), "target_norm of FeatureImitationHead is 'batch'"),
    ],
)
def test_refuses_unknown_settings(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureImitationHead(**(dict(teacher='mim', in_channels=C, embed_dim=D) | kwargs))
