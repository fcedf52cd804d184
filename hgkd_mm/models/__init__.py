"""Algorithms, teachers, necks and heads; importing this registers them in mmpretrain's MODELS."""

from .algorithms import HGKD, HybridDistill
from .heads import (
    DistillHead,
    FeatureDistillationHead,
    FeatureImitationHead,
    PixelReconstructionHead,
    SimilarityDistributionHead,
    TokenRelationHead,
)
from .outputs import StudentOutput, TeacherOutput, TransformerOutput
from .queue import MemoryQueue
from .teachers import MIMTeacher, TIMMTeacher
from .token_masking import RedundantTokenMasking
from .unet_decoder import UNetDecoder

__all__ = [
    'HGKD',
    'DistillHead',
    'FeatureDistillationHead',
    'FeatureImitationHead',
    'HybridDistill',
    'MIMTeacher',
    'MemoryQueue',
    'PixelReconstructionHead',
    'RedundantTokenMasking',
    'SimilarityDistributionHead',
    'StudentOutput',
    'TIMMTeacher',
    'TeacherOutput',
    'TokenRelationHead',
    'TransformerOutput',
    'UNetDecoder',
]
