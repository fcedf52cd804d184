"""Measures of frozen networks: kNN, linear probe, and statistics of features and attention."""

from .attention import attention_distance, attention_nmi, patch_attention, patch_distances
from .classifiers import LinearProbeResult, knn_accuracy, knn_scores, linear_probe
from .features import (
    LabelledFeatures,
    eval_mode,
    extract_features,
    isolated_rng,
    pool_features,
    pool_tokens,
)
from .labelled_dataset import build_labelled_dataset, check_same_classes
from .representation import (
    alignment,
    class_separability,
    effective_rank,
    rankme,
    token_similarity,
    uniformity,
)

__all__ = [
    'LabelledFeatures',
    'LinearProbeResult',
    'alignment',
    'attention_distance',
    'attention_nmi',
    'build_labelled_dataset',
    'check_same_classes',
    'class_separability',
    'effective_rank',
    'eval_mode',
    'extract_features',
    'isolated_rng',
    'knn_accuracy',
    'knn_scores',
    'linear_probe',
    'patch_attention',
    'patch_distances',
    'pool_features',
    'pool_tokens',
    'rankme',
    'token_similarity',
    'uniformity',
]
