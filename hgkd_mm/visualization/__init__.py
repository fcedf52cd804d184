"""Pictures of features, masks and training."""

from .backbone_view import view_backbone
from .distillation_view import view_distillation
from .images import denormalize, hide_cells
from .pca import FeaturePCA, match_colours, pca_to_rgb
from .predictions import Instances, draw_instances, draw_semantic
from .quickstart_figure import draw_quickstart_figure
from .scalars import Curve, read_scalars
from .view import Distributions, Pictures, View
from .view_figure import draw_view
from .visualize import Visualization, visualize

__all__ = [
    'Curve',
    'Distributions',
    'FeaturePCA',
    'Instances',
    'Pictures',
    'View',
    'Visualization',
    'denormalize',
    'draw_instances',
    'draw_quickstart_figure',
    'draw_semantic',
    'draw_view',
    'hide_cells',
    'match_colours',
    'pca_to_rgb',
    'read_scalars',
    'view_backbone',
    'view_distillation',
    'visualize',
]
