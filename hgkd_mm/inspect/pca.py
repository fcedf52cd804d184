"""Feature maps as pictures: their first three principal components as RGB."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from torch import Tensor

# Color of positions that carry no feature.
_NO_FEATURE = 235


class FeaturePCA:
    """A mapping from features to colors, fitted once and shared by many maps.

    The first three principal components become red, green and blue; each is stretched from a low
    to a high percentile of the features it was fitted to, so that outliers don't take the whole
    range. A component without variance is mid-grey.

    Args:
        features: (B, D, h, w) maps that share one set of components, D >= 3.
        valid: (B, h, w) bool, False for positions without a feature; all True by default.
        percentiles: low and high end of the color range.

    Raises:
        ValueError: from scikit-learn: fewer than 3 channels or valid positions, or NaN or Inf.
    """

    def __init__(
        self,
        features: Tensor,
        *,
        valid: Tensor | None = None,
        percentiles: tuple[float, float] = (1.0, 99.0),
    ) -> None:
        rows = _rows(features)
        if valid is not None:
            rows = rows[_flags(valid)]
        # Seeded because scikit-learn may choose its randomized solver; it also fixes the signs.
        with np.errstate(invalid='ignore'):  # constant features: 0 / 0 explained variance
            self.pca = PCA(n_components=3, random_state=0).fit(rows)
        self.low, self.high = np.percentile(self.pca.transform(rows), percentiles, axis=0)

    def to_rgb(self, features: Tensor, *, valid: Tensor | None = None) -> NDArray[np.uint8]:
        """(B, D, h, w) feature maps to (B, h, w, 3) uint8; light grey where not ``valid``."""
        scores = self.pca.transform(_rows(features))
        span = self.high - self.low
        flat = span <= 1e-12 * max(1.0, float(np.abs(self.high).max()))
        scaled = np.where(flat, 0.5, (scores - self.low) / np.where(flat, 1.0, span))
        colors = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
        if valid is not None:
            colors[~_flags(valid)] = _NO_FEATURE
        return colors.reshape(len(features), *features.shape[2:], 3)


def pca_to_rgb(
    features: Tensor,
    *,
    valid: Tensor | None = None,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> NDArray[np.uint8]:
    """Paints feature maps with their own components, see `FeaturePCA`."""
    return FeaturePCA(features, valid=valid, percentiles=percentiles).to_rgb(features, valid=valid)


def match_colors(pictures: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reorders and inverts color channels to resemble a reference as much as possible.

    The sign of a principal component is arbitrary, and so is the order of similar ones; the same
    content may get opposite colors in two networks. Of the 48 equivalent paintings this returns
    the one that correlates best with the reference.

    Args:
        pictures: (B, h, w, 3) uint8 from `pca_to_rgb`.
        reference: (B, H, W, 3) uint8 of the same images, on any grid.
    """
    ours = torch.from_numpy(pictures).permute(0, 3, 1, 2).double()
    theirs = torch.from_numpy(reference).permute(0, 3, 1, 2).double()
    theirs = F.interpolate(theirs, ours.shape[2:], mode='bilinear', antialias=True)
    ours, theirs = (x.transpose(0, 1).flatten(1) for x in (ours, theirs))
    ours, theirs = (F.normalize(x - x.mean(1, keepdim=True), dim=1) for x in (ours, theirs))
    correlation = (theirs @ ours.T).numpy()  # rows: reference channels
    order = linear_sum_assignment(-np.abs(correlation))[1]
    inverted = correlation[np.arange(3), order] < 0
    chosen = pictures[..., order]
    return np.where(inverted, 255 - chosen, chosen).astype(np.uint8)


def _rows(features: Tensor) -> NDArray[np.float64]:
    return features.detach().cpu().double().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _flags(valid: Tensor) -> NDArray[np.bool_]:
    return valid.detach().cpu().bool().flatten().numpy()
