import numpy as np
import pytest
import torch
from torch import Tensor

from hgkd_mm.inspect.figure import FeaturePCA


def pca_to_rgb(maps: Tensor, valid: Tensor | None = None) -> np.ndarray:
    return FeaturePCA(maps, valid=valid).to_rgb(maps, valid=valid)


def planted(*, width: int, noise: float = 0.0) -> tuple[Tensor, np.ndarray]:
    """Maps made of three orthogonal directions with amplitudes 9 > 4 > 1, and the amplitudes."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0][:3]
    weights = rng.uniform(-1, 1, size=(2 * 6 * 5, 3))
    # Exactly uncorrelated, so that the planted directions are the principal ones.
    weights = np.linalg.qr(weights - weights.mean(0))[0] * [9.0, 4.0, 1.0]
    rows = weights @ basis + rng.normal(size=(1, width)) + noise * rng.normal(size=(60, width))
    maps = torch.from_numpy(rows).reshape(2, 6, 5, width).permute(0, 3, 1, 2)
    return maps, weights.reshape(2, 6, 5, 3)


@pytest.mark.parametrize('width', [3, 7, 600])
def test_planted_components_become_the_channels(width: int) -> None:
    maps, weights = planted(width=width, noise=0.0 if width == 3 else 1e-4)
    colors = pca_to_rgb(maps)
    assert colors.shape == (2, 6, 5, 3) and colors.dtype == np.uint8
    for channel in range(3):
        amplitude = weights[..., channel]
        low, high = np.percentile(amplitude, (1, 99))
        scaled = 255 * ((amplitude - low) / (high - low)).clip(0, 1)
        found = colors[..., channel].astype(float)
        # A component's sign is arbitrary.
        error = min(np.abs(found - scaled).max(), np.abs(found - (255 - scaled)).max())
        assert error < 2


def test_same_features_same_colors_whatever_the_random_state() -> None:
    maps = torch.randn(2, 700, 6, 6, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    np.random.seed(1)
    first = pca_to_rgb(maps)
    np.random.seed(2)
    np.testing.assert_array_equal(pca_to_rgb(maps), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_outlier_does_not_take_the_range() -> None:
    maps, _ = planted(width=5)
    maps = torch.cat([maps] * 5)
    maps[0, :, 0, 0] *= 100
    assert pca_to_rgb(maps)[1:, ..., 0].std() > 40


def test_positions_without_a_feature_are_grey_and_do_not_count() -> None:
    maps, _ = planted(width=6)
    valid = torch.ones(2, 6, 5, dtype=torch.bool)
    valid[0, :3] = False
    garbage = maps.clone()
    garbage[0, :, :3] = 1e3
    colors = pca_to_rgb(garbage, valid=valid)
    np.testing.assert_array_equal(colors, pca_to_rgb(maps, valid=valid))
    assert (colors[0, :3] == 235).all() and not (colors[0, 3:] == 235).all()


def test_fitted_components_paint_other_maps() -> None:
    maps, _ = planted(width=6)
    components = FeaturePCA(maps)
    np.testing.assert_array_equal(components.to_rgb(maps[1:]), components.to_rgb(maps)[1:])
    # alone, the first map spreads over the range that the two share
    assert not np.array_equal(pca_to_rgb(maps[:1]), components.to_rgb(maps[:1]))
    with pytest.raises(ValueError, match='4 features.*6 features'):
        components.to_rgb(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize(
    'maps', [torch.zeros(1, 2, 4, 4), torch.full((1, 3, 4, 4), torch.nan), torch.zeros(1, 3, 1, 2)]
)
def test_bad_features_are_refused(maps: Tensor) -> None:
    with pytest.raises(ValueError):
        pca_to_rgb(maps)


def test_constant_features_are_mid_grey() -> None:
    assert set(np.unique(pca_to_rgb(torch.full((1, 4, 3, 3), 7.3)))) == {128}
