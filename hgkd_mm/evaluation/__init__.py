"""What frozen features are worth: kNN, linear probe, and figures of attention and features."""

from .attention import attention_distance, attention_nmi, patch_attention, patch_distances
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
from .representation import (
    alignment,
    class_separability,
    effective_rank,
    rankme,
    token_similarity,
    uniformity,
)
from .rng import isolated_rng

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
