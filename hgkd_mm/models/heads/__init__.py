"""Loss heads, one term of the objective each."""

from .base import DistillHead
from .features import FeatureDistillationHead, FeatureImitationHead
from .pixel_reconstruction import PixelReconstructionHead
from .similarity_distribution import SimilarityDistributionHead
from .token_relation import TokenRelationHead

__all__ = [
    'DistillHead',
    'FeatureDistillationHead',
    'FeatureImitationHead',
    'PixelReconstructionHead',
    'SimilarityDistributionHead',
    'TokenRelationHead',
]
