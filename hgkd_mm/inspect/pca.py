"""Feature maps as pictures: their first three principal components as RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

HIDDEN = 235  # grey of positions without a feature, and of hidden cells
_PERCENTILES = (1.0, 99.0)  # ends of the color range, so that outliers don't take all of it


class FeaturePCA:
    """A mapping from features to colors, fitted once and shared by many maps.

    The first three principal components become red, green and blue. A component without variance
    is mid-grey.

    Args:
        features: (B, D, h, w) maps that share one set of components, D >= 3.
        valid: (B, h, w) bool, False for positions without a feature; all True by default.

    Raises:
        ValueError: from scikit-learn: fewer than 3 channels or valid positions, or NaN or Inf.
    """

    def __init__(self, features: Tensor, *, valid: Tensor | None = None) -> None:
        rows = _rows(features)
        if valid is not None:
            rows = rows[_flags(valid)]
        # Seeded because scikit-learn may choose its randomized solver; it also fixes the signs.
        with np.errstate(invalid='ignore'):  # constant features: 0 / 0 explained variance
            self.pca = PCA(n_components=3, random_state=0).fit(rows)
        self.low, self.high = np.percentile(self.pca.transform(rows), _PERCENTILES, axis=0)

    def to_rgb(self, features: Tensor, *, valid: Tensor | None = None) -> NDArray[np.uint8]:
        """(B, D, h, w) feature maps to (B, h, w, 3) uint8; light grey where not ``valid``."""
        scores = self.pca.transform(_rows(features))
        span = self.high - self.low
        flat = span <= 1e-12 * max(1.0, float(np.abs(self.high).max()))
        scaled = np.where(flat, 0.5, (scores - self.low) / np.where(flat, 1.0, span))
        colors = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
        if valid is not None:
            colors[~_flags(valid)] = HIDDEN
        return colors.reshape(len(features), *features.shape[2:], 3)


def _rows(features: Tensor) -> NDArray[np.float64]:
    return features.detach().cpu().double().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _flags(valid: Tensor) -> NDArray[np.bool_]:
    return valid.detach().cpu().bool().flatten().numpy()
