"""Honest timing: ratios against a reference, measured in turn in one process."""

from .encoder import EncoderSteps, encoder_steps
from .networks import NETWORKS, build_mmpretrain_sparse, build_network, with_sparse_helper
from .timing import Measurement, keep_freed_memory, measure, saved_bytes, versions
from .whole_step import VARIANTS, build_models, load_images, step_parts, whole_step

__all__ = [
    'NETWORKS',
    'VARIANTS',
    'EncoderSteps',
    'Measurement',
    'build_mmpretrain_sparse',
    'build_models',
    'build_network',
    'encoder_steps',
    'keep_freed_memory',
    'load_images',
    'measure',
    'saved_bytes',
    'step_parts',
    'versions',
    'whole_step',
    'with_sparse_helper',
]
