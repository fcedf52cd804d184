"""SparK's pixel loss against numpy and mmpretrain."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.models.heads import PixelReconstructionHead
from hgkd_mm.models.outputs import StudentOutput
from hgkd_mm.sparse import CellMask

C = 4


def build(**kwargs: object) -> PixelReconstructionHead:
    torch.manual_seed(0)
    settings = dict(type='PixelReconstructionHead', in_channels=C) | kwargs
    return MODELS.build(settings).double()


def student(out_stride: int, visible: torch.Tensor | None = None) -> StudentOutput:
    """Images of 8 x 12 px in cells of 4 px, hidden counts 4 and 2."""
    torch.manual_seed(5)
    if visible is None:
        visible = torch.tensor([[[1, 0, 0], [0, 1, 0]], [[1, 1, 1], [0, 1, 0]]]).bool()
    return StudentOutput(
        images=torch.randn(2, 3, 8, 12).double() * 3 + 1,
        mask=CellMask(visible),
        maps=(),
        decoded=torch.randn(2, C, 8 // out_stride, 12 // out_stride).double(),
    )


@pytest.mark.parametrize('out_stride', [1, 2])
def test_equals_numpy(out_stride: int) -> None:
    head = build(out_stride=out_stride)
    given = student(out_stride)
    weight = head.project.weight.detach().numpy()[:, :, 0, 0]
    bias = head.project.bias.detach().numpy()
    decoded, images = given.decoded.numpy(), given.images.numpy()
    predicted = np.empty_like(images)
    for b, y, x in np.ndindex(2, 8, 12):
        values = weight @ decoded[b, :, y // out_stride, x // out_stride] + bias
        inside = (y % out_stride) * out_stride + x % out_stride
        predicted[b, :, y, x] = values.reshape(3, out_stride**2)[:, inside]
    errors = []
    for b, i, j in zip(*np.nonzero(~given.mask.visible.numpy()), strict=True):
        cell = np.s_[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        target = images[cell]
        target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
        errors.append(np.mean((predicted[cell] - target) ** 2))
    assert len(errors) == 6
    np.testing.assert_allclose(head(given).item(), np.mean(errors), rtol=1e-12)


def test_nothing_hidden_is_zero_not_nan() -> None:
    loss = build()(student(1, torch.ones(2, 2, 3, dtype=torch.bool)))
    assert loss.item() == 0
    assert loss.requires_grad


def test_a_perfect_prediction_fills_in_the_images() -> None:
    head = build()
    given = student(1)
    images = given.images.numpy()
    standardised = np.empty_like(images)
    for b, i, j in np.ndindex(2, 2, 3):
        cell = np.s_[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        values = images[cell]
        standardised[cell] = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
    given.decoded = torch.from_numpy(standardised)
    head.project = torch.nn.Identity()
    torch.testing.assert_close(head.fill_in(given), given.images, rtol=0, atol=1e-12)


def test_visible_cells_are_the_images_and_hidden_ones_have_their_mean() -> None:
    head = build(out_stride=2)
    given = student(2)
    given.decoded = torch.zeros_like(given.decoded)
    head.project.bias.data.zero_()
    filled, images = head.fill_in(given).detach().numpy(), given.images.numpy()
    for b, i, j in np.ndindex(2, 2, 3):
        cell = np.s_[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        if given.mask.visible[b, i, j]:
            np.testing.assert_array_equal(filled[cell], images[cell])
        else:
            np.testing.assert_allclose(filled[cell], images[cell].mean(), atol=1e-12)
