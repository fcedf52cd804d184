"""Pictures of features, masks and training."""

from .images import denormalize, hide_cells
from .pca import FeaturePCA, match_colours, pca_to_rgb
from .quickstart_figure import draw_quickstart_figure
from .scalars import Curve, read_scalars

__all__ = [
    'Curve',
    'FeaturePCA',
    'denormalize',
    'draw_quickstart_figure',
    'hide_cells',
    'match_colours',
    'pca_to_rgb',
    'read_scalars',
]
