"""From a checkpoint of pre-training to a backbone that other libraries load."""

from .export import TARGETS, Exported, convert, export_backbone
from .files import Provenance
from .loading import Converted, ExportReport
from .source import PretrainedBackbone, read_pretrained

__all__ = [
    'TARGETS',
    'Converted',
    'ExportReport',
    'Exported',
    'PretrainedBackbone',
    'Provenance',
    'convert',
    'export_backbone',
    'read_pretrained',
]
