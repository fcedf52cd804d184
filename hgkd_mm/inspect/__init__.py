"""Pictures and reports of trained networks: masks, features, similarities, attention."""

from .analysis import analyze, figures_table
from .figure import draw_columns
from .images import InputFormat
from .visualization import backbone_columns, distillation_columns, visualize

__all__ = [
    'InputFormat',
    'analyze',
    'backbone_columns',
    'distillation_columns',
    'draw_columns',
    'figures_table',
    'visualize',
]
