"""Algorithms, teachers, necks and heads; importing this registers them in mmpretrain's MODELS."""

from .algorithms import HGKD
from .heads import (
    DistillHead,
    FeatureImitationHead,
    PixelReconstructionHead,
    SimilarityDistributionHead,
)
from .necks import UNetDecoder
from .outputs import StudentOutput, TeacherOutput
from .queue import MemoryQueue
from .teachers import MIMTeacher, TIMMTeacher

__all__ = [
    'HGKD',
    'DistillHead',
    'FeatureImitationHead',
    'MIMTeacher',
    'MemoryQueue',
    'PixelReconstructionHead',
    'SimilarityDistributionHead',
    'StudentOutput',
    'TIMMTeacher',
    'TeacherOutput',
    'UNetDecoder',
]
