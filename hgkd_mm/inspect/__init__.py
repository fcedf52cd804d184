"""Pictures and reports of trained networks: features, masks, attention, predictions, curves."""

from .analysis import analyze, figures_table
from .images import denormalize
from .model_grids import backbone_grid, distillation_grid, draw_quickstart_figure
from .predictions import draw_predictions
from .scalars import Curve, read_scalars
from .visualization import visualize

__all__ = [
    'Curve',
    'analyze',
    'backbone_grid',
    'denormalize',
    'distillation_grid',
    'draw_predictions',
    'draw_quickstart_figure',
    'figures_table',
    'read_scalars',
    'visualize',
]
