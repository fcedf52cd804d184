"""Loss heads, one term of the objective each."""

from .base import DistillHead
from .feature_imitation import FeatureImitationHead
from .pixel_reconstruction import PixelReconstructionHead
from .similarity_distribution import SimilarityDistributionHead

__all__ = [
    'DistillHead',
    'FeatureImitationHead',
    'PixelReconstructionHead',
    'SimilarityDistributionHead',
]
