"""Honest timing: ratios against a reference, measured in turn in one process."""

from importlib import import_module

from .encoder import EncoderSteps, encoder_steps
from .methods import methods_report
from .networks import NETWORKS, build_mmpretrain_sparse, build_network
from .table import Report, Settings
from .timing import Measurement, keep_freed_memory, measure, saved_bytes, versions

# Their modules import mmpretrain: they are read when they are first asked for, so that the rest
# needs torch alone.
_WITH_MMPRETRAIN = {
    'VARIANTS': 'hgkd_step',
    'build_models': 'hgkd_step',
    'encoder_report': 'reports',
    'load_images': 'hgkd_step',
    'masking_report': 'masking',
    'profile_report': 'reports',
    'ratios_report': 'reports',
    'step_parts': 'hgkd_step',
    'step_report': 'reports',
    'whole_step': 'hgkd_step',
}

__all__ = [
    'NETWORKS',
    'EncoderSteps',
    'Measurement',
    'Report',
    'Settings',
    'build_mmpretrain_sparse',
    'build_network',
    'encoder_steps',
    'keep_freed_memory',
    'measure',
    'methods_report',
    'saved_bytes',
    'versions',
    *_WITH_MMPRETRAIN,
]


def __getattr__(name: str) -> object:
    if name not in _WITH_MMPRETRAIN:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_WITH_MMPRETRAIN[name]}', __name__), name)
