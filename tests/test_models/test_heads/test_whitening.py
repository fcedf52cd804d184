"""Whitening against numpy, and what it is for."""

import numpy as np
import pytest
import torch

from hgkd_mm.models.heads.whitening import Whitening, read_target_norm


def features(count: int = 400) -> torch.Tensor:
    """Correlated features with a large common part: (N, 6) float64."""
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=g, dtype=torch.double)
    return torch.randn(count, 6, generator=g, dtype=torch.double) @ mixing + 50


def test_one_batch_equals_numpy() -> None:
    x = features()
    whitening = Whitening(6, ridge=0.1).double()
    whitening.update(x, torch.ones(len(x), dtype=torch.bool))
    z = x.numpy() - x.numpy().mean(0)
    covariance = z.T @ z / len(z)
    values, vectors = np.linalg.eigh(covariance + 0.1 * np.trace(covariance) / 6 * np.eye(6))
    want = z @ (vectors / np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(whitening(x).numpy(), want, rtol=1e-9, atol=1e-9)


def test_rows_that_do_not_count_leave_no_trace() -> None:
    x, junk = features(), torch.full((50, 6), torch.nan, dtype=torch.double)
    clean, dirty = Whitening(6).double(), Whitening(6).double()
    clean.update(x, torch.ones(len(x), dtype=torch.bool))
    dirty.update(torch.cat([x, junk]), torch.arange(len(x) + 50) < len(x))
    torch.testing.assert_close(clean.transform, dirty.transform)


def test_averages_are_plain_at_first_and_follow_later() -> None:
    whitening = Whitening(6, momentum=0.4).double()
    every = torch.ones(400, dtype=torch.bool)
    whitening.update(features(), every)
    first = whitening.mean.clone()
    whitening.update(features() + 8, every)
    torch.testing.assert_close(whitening.mean, first + 4)  # 1/2 of 8
    whitening.update(features() + 9, every)
    torch.testing.assert_close(whitening.mean, first + 6)  # .4, which is more than 1/3, of 5
    restored = Whitening(6, momentum=0.4).double()
    restored.load_state_dict(whitening.state_dict())
    torch.testing.assert_close(restored(features()), whitening(features()))


def test_autocast_does_not_touch_it() -> None:
    x = features().float()
    every = torch.ones(len(x), dtype=torch.bool)
    plain, cast = Whitening(6), Whitening(6)
    plain.update(x, every)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast.update(x, every)
        out = cast(x)
    assert torch.equal(plain.transform, cast.transform)
    assert torch.equal(out, plain(x))


@pytest.mark.parametrize('bad', [0.0, torch.inf, torch.nan])
def test_a_batch_without_rows_or_with_a_broken_one_changes_nothing(bad: float) -> None:
    x = features()
    whitening = Whitening(6).double()
    whitening.update(x, torch.ones(len(x), dtype=torch.bool))
    before = {key: value.clone() for key, value in whitening.state_dict().items()}
    broken = x.clone()
    broken[3, 2] = bad
    whitening.update(broken, torch.full((len(x),), bad != 0))
    for key, value in whitening.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_a_rank_keeps_the_directions_of_largest_variance() -> None:
    x = features()
    every = torch.ones(len(x), dtype=torch.bool)
    whitening = Whitening(6, ridge=0.0, rank=2).double()
    whitening.update(x, every)
    out = whitening(x)
    z = x.numpy() - x.numpy().mean(0)
    _, singular, directions = np.linalg.svd(z, full_matrices=False)
    want = (z @ directions[:2].T / singular[:2] * len(z) ** 0.5) @ directions[:2] * 3**0.5
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(out.square().mean(), torch.ones(()).double())


@pytest.mark.parametrize(
    ('setting', 'expected'),
    [
        (None, (None, None)),
        ('whiten', ('whiten', None)),
        (dict(type='whiten', rank=6), ('whiten', 6)),
        ('batch', None),
        (dict(type='whiten', rank=7), None),
        (dict(type='layer_norm', rank=2), None),
        (dict(type='whiten', ranks=2), None),
    ],
)
def test_settings_of_a_normalization(setting: str | dict | None, expected: tuple | None) -> None:
    known = dict(known=('layer_norm', 'whiten', None), dim=6, key='target_norm')
    if expected is not None:
        assert read_target_norm(setting, **known) == expected
    else:
        with pytest.raises(ValueError, match='target_norm is .* of 6 directions'):
            read_target_norm(setting, **known)
