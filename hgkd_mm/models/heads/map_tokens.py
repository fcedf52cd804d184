"""A decoded map, projected, on a teacher's token grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def project_to_grid(
    decoded: Tensor, project: nn.Module, grid: tuple[int, int], *, teacher: str
) -> Tensor:
    """A decoded map through a 1x1 projection, one position a teacher's token.

    A map finer than the token grid is averaged over each token, a coarser one interpolated.

    Args:
        decoded: (B, C, h, w).
        project: 1x1 convolution from C to D channels.
        grid: (gh, gw) tokens.
        teacher: name of the teacher, for messages.

    Returns:
        (B, D, gh, gw).

    Raises:
        ValueError: the two sizes are not multiples of each other.
    """
    (h, w), (gh, gw) = decoded.shape[2:], grid
    # Projection and resizing commute; each order below does the less work.
    if h % gh == 0 and w % gw == 0:
        if (h, w) != grid:
            decoded = F.avg_pool2d(decoded, (h // gh, w // gw))
        return project(decoded)
    if gh % h == 0 and gw % w == 0:
        return F.interpolate(project(decoded), size=grid, mode='bilinear', align_corners=False)
    raise ValueError(
        f"The decoded map of {h} x {w} and the {gh} x {gw} tokens of teacher '{teacher}' are not "
        'multiples of each other: choose neck.out_stride equal to the patch size of the teacher, '
        'or an image size that both divide.'
    )
