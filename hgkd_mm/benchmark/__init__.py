"""Honest timing: ratios against a reference, measured in turn in one process."""

from .encoder import EncoderSteps, encoder_steps
from .masking import masking_report
from .methods import methods_report
from .networks import NETWORKS, build_mmpretrain_sparse, build_network
from .reports import (
    Report,
    Settings,
    encoder_report,
    profile_report,
    ratios_report,
    step_report,
)
from .timing import Measurement, keep_freed_memory, measure, saved_bytes, versions
from .whole_step import VARIANTS, build_models, load_images, step_parts, whole_step

__all__ = [
    'NETWORKS',
    'VARIANTS',
    'EncoderSteps',
    'Measurement',
    'Report',
    'Settings',
    'build_mmpretrain_sparse',
    'build_models',
    'build_network',
    'encoder_report',
    'encoder_steps',
    'keep_freed_memory',
    'load_images',
    'masking_report',
    'measure',
    'methods_report',
    'profile_report',
    'ratios_report',
    'saved_bytes',
    'step_parts',
    'step_report',
    'versions',
    'whole_step',
]
