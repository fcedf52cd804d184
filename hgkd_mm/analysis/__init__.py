"""What a network attends to and what its features are like, of a config and its weights."""

from .analyze import Analysis, analyze
from .attention import LayerAttention, attention_curves, attention_maps
from .features import StageFeatures, collect_features, feature_figures
from .image_set import ImageSet, load_image_set
from .layout import TokenLayout, find_queries, token_layout
from .subject import Subject, load_student, load_teacher

__all__ = [
    'Analysis',
    'ImageSet',
    'LayerAttention',
    'StageFeatures',
    'Subject',
    'TokenLayout',
    'analyze',
    'attention_curves',
    'attention_maps',
    'collect_features',
    'feature_figures',
    'find_queries',
    'load_image_set',
    'load_student',
    'load_teacher',
    'token_layout',
]
