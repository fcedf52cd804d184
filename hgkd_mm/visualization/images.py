"""Images for people to look at, from images for networks to look at."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Undo a data preprocessor's normalisation.

    Args:
        images: (B, 3, H, W) RGB, normalised.
        mean: Per channel, in 0..255 units, as in the data preprocessor's config.
        std: The same.

    Returns:
        (B, H, W, 3) uint8 RGB.
    """
    scale, shift = (torch.as_tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (std, mean))
    pixels = images.detach().cpu().float() * scale + shift
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def hide_cells(images: NDArray[np.uint8], visible: Tensor, *, fill: int = 235) -> NDArray[np.uint8]:
    """Cover the cells that the student does not see.

    Args:
        images: (B, H, W, 3) uint8.
        visible: (B, gh, gw) bool, True = visible (``CellMask.visible``); H and W
            are multiples of gh and gw.
        fill: Grey value of hidden cells.

    Returns:
        (B, H, W, 3) uint8 copy.

    Raises:
        ValueError: The image does not divide into the grid.
    """
    batch, height, width, _ = images.shape
    grid_batch, rows, columns = visible.shape
    if batch != grid_batch or height % rows or width % columns:
        raise ValueError(
            f'{batch} images of {height} x {width} px do not divide into {grid_batch} masks of '
            f'{rows} x {columns} cells.'
        )
    flags = visible.detach().cpu().bool().numpy()
    pixels = flags.repeat(height // rows, axis=1).repeat(width // columns, axis=2)
    return np.where(pixels[..., None], images, np.uint8(fill))
