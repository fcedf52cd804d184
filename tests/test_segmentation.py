"""The class-weighted loss against torch's, with labels that are ignored."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss

from hgkd_mm.segmentation import ClassWeightedCrossEntropyLoss

WEIGHTS = [0.2, 1.0, 3.0]


@pytest.mark.parametrize('ignored', [0, 7])
def test_equals_torchs_with_its_gradient(ignored: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    label = torch.randint(3, (2, 4, 4), generator=generator)
    label.view(-1)[:ignored] = 255
    ours = ClassWeightedCrossEntropyLoss(class_weight=WEIGHTS, loss_weight=0.4)
    loss = ours(scores, label, ignore_index=255)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = 0.4 * F.cross_entropy(scores, label, weight=weights, ignore_index=255)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # mmseg adds an eps
    (own,) = torch.autograd.grad(loss, scores)
    (torchs,) = torch.autograd.grad(expected, scores)
    torch.testing.assert_close(own, torchs, rtol=1e-6, atol=1e-12)


def test_equals_mmsegs_where_that_works() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 4, generator=generator).bfloat16()
    label = torch.randint(3, (2, 4, 4), generator=generator)
    ours = ClassWeightedCrossEntropyLoss(class_weight=WEIGHTS)(scores, label, ignore_index=255)
    assert torch.equal(
        ours, CrossEntropyLoss(class_weight=WEIGHTS)(scores, label, ignore_index=255)
    )


def test_images_of_which_nothing_counts() -> None:
    ours = ClassWeightedCrossEntropyLoss(class_weight=WEIGHTS)
    label = torch.full((1, 2, 2), 255)
    assert ours(torch.randn(1, 3, 2, 2), label, ignore_index=255).item() == 0
