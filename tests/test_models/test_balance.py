"""Balances of loss terms against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgkd_mm.models.balance import GradientBalance, UncertaintyBalance

ONES = dict.fromkeys(('big', 'small', 'late', 'a', 'b'), 1.0)


def terms(z: Tensor) -> dict[str, Tensor]:
    """Gradients of norm 2 * 8 and 2 * .5 with respect to 4 numbers."""
    return dict(big=8 * z.sum(), small=0.5 * z.sum())


def test_gradients_have_equal_norms_afterwards() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    out = balance(terms(z), ONES, z)
    # Norms 16 and 1, geometric mean 4.
    assert out['balance_big'].item() == pytest.approx(4 / 16)
    assert out['balance_small'].item() == pytest.approx(4)
    norms = [
        torch.autograd.grad(out[f'loss_{n}'], z, retain_graph=True)[0].norm().item()
        for n in ('big', 'small')
    ]
    assert norms == pytest.approx([4, 4])


def test_norms_move_slowly_and_stay_in_the_checkpoint() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance(momentum=0.9)
    balance.name_terms(['big', 'small'])
    balance(terms(z), ONES, z)
    balance(dict(big=16 * z.sum(), small=0.5 * z.sum()), ONES, z)
    torch.testing.assert_close(balance.state_dict()['norms'], torch.tensor([0.9 * 16 + 3.2, 1.0]))


def test_a_term_without_gradient_has_balance_one_until_it_begins() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'late'])
    out = balance(dict(big=8 * z.sum(), late=z.sum() * 0.0), ONES, z)
    assert (out['balance_big'].item(), out['balance_late'].item()) == pytest.approx((1, 1))
    out = balance(dict(big=8 * z.sum(), late=2 * z.sum()), ONES, z)
    assert out['balance_late'].item() == pytest.approx(math.sqrt(16 * 4) / 4)


def test_nothing_is_measured_outside_training() -> None:
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    balance.train(False)
    z = torch.randn(4, requires_grad=True)
    assert balance(terms(z), ONES, z)['balance_big'].item() == 1
    balance.train()
    with torch.no_grad():
        assert balance(terms(z), ONES, z)['balance_big'].item() == 1


def test_uncertainty_by_hand() -> None:
    balance = UncertaintyBalance()
    balance.name_terms(['a', 'b'])
    balance.log_variances.data = torch.tensor([math.log(2), 0.0])
    out = balance(dict(a=torch.tensor(3.0), b=torch.tensor(0.5)), ONES, torch.zeros(1))
    assert out['loss_a'].item() == pytest.approx(1.5)
    assert out['loss_b'].item() == pytest.approx(0.5)
    assert out['loss_uncertainty'].item() == pytest.approx(math.log(2))
    total = sum(value for name, value in out.items() if 'loss' in name)
    total.backward()
    # d/ds (exp(-s) L + s) = 1 - exp(-s) L, zero where the variance is the loss.
    torch.testing.assert_close(balance.log_variances.grad, torch.tensor([-0.5, 0.5]))


def test_a_frozen_backbone_has_no_gradients_to_compare() -> None:
    balance = GradientBalance()
    balance.name_terms(['a'])
    weight = torch.ones(1, requires_grad=True)
    z = torch.ones(4)
    with pytest.raises(RuntimeError, match='backbone is frozen: train it, or remove model.balance'):
        balance(dict(a=(weight * z).sum()), ONES, z)


def test_momentum_out_of_range() -> None:
    with pytest.raises(ValueError, match=r'momentum is 1\.0'):
        GradientBalance(momentum=1.0)


def test_weights_of_the_heads_say_how_hard_each_pulls() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    out = balance(terms(z), dict(big=1.0, small=3.0), z)
    norms = [
        torch.autograd.grad(out[f'loss_{n}'], z, retain_graph=True)[0].norm().item()
        for n in ('big', 'small')
    ]
    assert norms == pytest.approx([4, 12])


def test_weights_of_the_heads_under_uncertainty() -> None:
    balance = UncertaintyBalance()
    balance.name_terms(['a', 'b'])
    losses, weights = dict(a=torch.tensor(3.0), b=torch.tensor(0.5)), dict(a=2.0, b=1.0)
    out = balance(losses, weights, torch.zeros(1))
    assert out['loss_a'].item() == pytest.approx(6)
    sum(value for name, value in out.items() if 'loss' in name).backward()
    # w (1 - exp(-s) L), zero at the same s whatever w is.
    torch.testing.assert_close(balance.log_variances.grad, torch.tensor([2 * -2.0, 0.5]))


def test_one_bad_norm_does_not_stay() -> None:
    z = torch.randn(4, requires_grad=True)
    balance = GradientBalance(momentum=0.9)
    balance.name_terms(['big', 'small'])
    balance(terms(z), ONES, z)
    out = balance(dict(big=math.inf * z.sum(), small=0.5 * z.sum()), ONES, z)
    torch.testing.assert_close(balance.norms, torch.tensor([16.0, 1.0]))
    assert out['balance_big'].item() == pytest.approx(4 / 16)


def test_small_gradients_do_not_vanish_in_half_precision() -> None:
    z = torch.ones(4, dtype=torch.float16, requires_grad=True)
    balance = GradientBalance()
    balance.name_terms(['big', 'small'])
    balance(dict(big=z.float().sum() * 2e-8, small=z.float().sum() * 1e-8), ONES, z)
    # float16 ends at 6e-8.
    torch.testing.assert_close(balance.norms, torch.tensor([4e-8, 2e-8]), rtol=1e-2, atol=0)


@pytest.mark.parametrize('name', ['featureloss', 'uncertainty'])
def test_names_that_would_be_added_up_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no head may be called \\['{name}'\\]"):
        GradientBalance().name_terms(['feat', name])
