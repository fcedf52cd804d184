"""Balances of loss terms against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgkd_mm.models.balance import GradientBalance, UncertaintyBalance


def terms(z: Tensor) -> dict[str, Tensor]:
    """Gradients of norm 2 * 8 and 2 * .5 with respect to 4 numbers."""
    return dict(big=8 * z.sum(), small=0.5 * z.sum())


def test_gradients_have_equal_norms_afterwards() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    out = balance(terms(z), z)
    # Norms 16 and 1, geometric mean 4.
    assert out['weight_big'].item() == pytest.approx(4 / 16)
    assert out['weight_small'].item() == pytest.approx(4)
    norms = [
        torch.autograd.grad(out[f'loss_{n}'], z, retain_graph=True)[0].norm().item()
        for n in ('big', 'small')
    ]
    assert norms == pytest.approx([4, 4])


def test_norms_move_slowly_and_stay_in_the_checkpoint() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance(momentum=0.9)
    balance.name_terms(['big', 'small'])
    balance(terms(z), z)
    balance(dict(big=16 * z.sum(), small=0.5 * z.sum()), z)
    torch.testing.assert_close(balance.state_dict()['norms'], torch.tensor([0.9 * 16 + 3.2, 1.0]))


def test_a_term_without_gradient_has_weight_one_until_it_begins() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'late'])
    out = balance(dict(big=8 * z.sum(), late=z.sum() * 0.0), z)
    assert (out['weight_big'].item(), out['weight_late'].item()) == pytest.approx((1, 1))
    out = balance(dict(big=8 * z.sum(), late=2 * z.sum()), z)
    assert out['weight_late'].item() == pytest.approx(math.sqrt(16 * 4) / 4)


def test_nothing_is_measured_outside_training() -> None:
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    balance.train(False)
    z = torch.randn(4, requires_grad=True)
    assert balance(terms(z), z)['weight_big'].item() == 1
    balance.train()
    with torch.no_grad():
        assert balance(terms(z), z)['weight_big'].item() == 1


def test_uncertainty_by_hand() -> None:
    balance = UncertaintyBalance()
    balance.name_terms(['a', 'b'])
    balance.log_variances.data = torch.tensor([math.log(2), 0.0])
    out = balance(dict(a=torch.tensor(3.0), b=torch.tensor(0.5)), torch.zeros(1))
    assert out['loss_a'].item() == pytest.approx(1.5)
    assert out['loss_b'].item() == pytest.approx(0.5)
    assert out['loss_uncertainty'].item() == pytest.approx(math.log(2))
    total = sum(value for name, value in out.items() if 'loss' in name)
    total.backward()
    # d/ds (exp(-s) L + s) = 1 - exp(-s) L, zero where the variance is the loss.
    torch.testing.assert_close(balance.log_variances.grad, torch.tensor([-0.5, 0.5]))


def test_momentum_out_of_range() -> None:
    with pytest.raises(ValueError, match=r'momentum is 1\.0'):
        GradientBalance(momentum=1.0)
