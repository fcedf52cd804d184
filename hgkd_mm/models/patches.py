"""What a token of a vision transformer covers."""

from __future__ import annotations

from torch import nn


def patch_size(vit: nn.Module) -> tuple[int, int]:
    """Pixels (height, width) of the patches that an mmpretrain transformer makes tokens of.

    Raises:
        ValueError: patches overlap or leave gaps, so that tokens are no tiling of the image.
    """
    projection = vit.patch_embed.projection
    size, stride = projection.kernel_size, projection.stride
    if size != stride:
        raise ValueError(
            f'Patches of {size[0]} x {size[1]} px every {stride[0]} x {stride[1]} px do not tile '
            "the image, which comparing tokens one by one needs: leave stride out of the student's "
            'model.backbone.patch_cfg.'
        )
    return size
