"""What frozen features are worth: kNN and linear probe."""

from .features import (
    LabelledFeatures,
    eval_mode,
    extract_features,
    pool_features,
    pool_tokens,
)
from .knn import knn_accuracy, knn_scores
from .labelled_dataset import build_labelled_dataset, check_same_classes
from .linear_probe import LinearProbeResult, linear_probe
from .rng import isolated_rng

__all__ = [
    'LabelledFeatures',
    'LinearProbeResult',
    'build_labelled_dataset',
    'check_same_classes',
    'eval_mode',
    'extract_features',
    'isolated_rng',
    'knn_accuracy',
    'knn_scores',
    'linear_probe',
    'pool_tokens',
    'pool_features',
]
