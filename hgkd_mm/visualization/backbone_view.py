"""What a backbone makes of whole images, stage by stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hgkd_mm.evaluation.features import eval_mode

from .input_format import InputFormat
from .pca import match_colours, pca_to_rgb
from .view import Pictures, View


def view_backbone(backbone: nn.Module, images: Tensor, *, input_format: InputFormat) -> View:
    """Columns for the images and each map that the backbone gives, with it in eval mode.

    Each map has principal components of its own, shared by the images; their colours are
    brought close to those of the map before it.

    Args:
        backbone: maps images to a (B, C, h, w) map or several, on the images' device.
        images: (B, 3, H, W) normalised.
        input_format: how they are normalised.

    Raises:
        ValueError: it gives anything else, or maps of fewer than three channels or positions.
    """
    with eval_mode(backbone), torch.no_grad():
        output = backbone(images)
    maps = output if isinstance(output, list | tuple) else [output]
    for index, features in enumerate(maps):
        if not isinstance(features, Tensor) or features.dim() != 4:
            seen = (
                tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            )
            raise ValueError(
                f'Output {index} of {type(backbone).__name__} is {seen}, but pictures are made of '
                '(B, C, h, w) maps. For a vision transformer of mmpretrain: '
                '--cfg-options model.backbone.out_type=featmap'
            )
    view = View(
        columns=[Pictures(group='input', title='image', pictures=input_format.restore(images))]
    )
    previous = None
    for features in maps:
        painted = pca_to_rgb(features)
        previous = painted if previous is None else match_colours(painted, previous)
        _, channels, height, width = features.shape
        view.columns.append(
            Pictures(
                group=f'maps of {type(backbone).__name__}',
                title=f'{height} x {width},\n{channels} channels',
                pictures=previous,
            )
        )
    view.notes.append(
        'Maps: their first three principal components as red, green and blue, of each map its own, '
        'shared by all images.'
    )
    return view
