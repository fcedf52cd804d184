"""Pictures and reports of trained networks: masks, features, similarities, attention."""

from .analysis import analyze, figures_table
from .columns import backbone_columns, distillation_columns
from .figure import draw_columns
from .images import InputFormat
from .visualization import visualize

__all__ = [
    'InputFormat',
    'analyze',
    'backbone_columns',
    'distillation_columns',
    'draw_columns',
    'figures_table',
    'visualize',
]
