"""From a checkpoint of pre-training to a backbone that other libraries load."""

from .counterparts import Converted
from .export import TARGETS, Exported, convert, export_backbone
from .hook import ExportBackboneHook
from .source import PretrainedBackbone, read_pretrained

__all__ = [
    'TARGETS',
    'Converted',
    'ExportBackboneHook',
    'Exported',
    'PretrainedBackbone',
    'convert',
    'export_backbone',
    'read_pretrained',
]
