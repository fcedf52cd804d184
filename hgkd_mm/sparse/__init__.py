"""Sparse computation for masked images: run any CNN on visible cells only.

Needs torch and nothing else::

    mask = CellMask.random(batch=8, grid=(7, 7), mask_ratio=0.6)
    maps = backbone(sparsify(images, mask))     # an unmodified network
    maps[-1].to_dense()                         # (B, C, H, W)
"""

from torch import Tensor

# These register what a SparseFeatureMap answers.
from . import channel_ops, channels_last, grouped, ops, statistics, window_ops  # noqa: F401
from .cell_mask import CellMask
from .dispatch import UnsupportedOpError
from .feature_map import SparseFeatureMap
from .masked_dense import MaskedDenseMap
from .prepare import prepare
from .tiles import TileMap

__all__ = [
    'ENGINES',
    'CellMask',
    'SparseFeatureMap',
    'UnsupportedOpError',
    'prepare',
    'sparsify',
]

ENGINES: dict[str, type[TileMap] | type[MaskedDenseMap]] = {
    'tiles': TileMap,
    'masked_dense': MaskedDenseMap,
}


def sparsify(images: Tensor, mask: CellMask, engine: str = 'tiles') -> SparseFeatureMap:
    """Images as a map that exists only in the visible cells.

    Args:
        images: (B, C, H, W), H and W multiples of the mask grid.
        mask: which cells are visible; True = visible.
        engine: 'tiles' (fast) or 'masked_dense' (the reference, as SparK computes).

    Returns:
        A stand-in for ``images`` that an unmodified CNN accepts.

    Raises:
        ValueError: unknown engine; images that are not (B, C, H, W), of another batch size
            than the mask, or not divisible into its cells.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown engine '{engine}': choose one of {list(ENGINES)}.")
    if images.dim() != 4:
        raise ValueError(f'sparsify wants images of shape (B, C, H, W), got {tuple(images.shape)}.')
    if images.shape[0] != mask.batch:
        raise ValueError(f'{images.shape[0]} images came with a mask for {mask.batch} images.')
    return ENGINES[engine].of(images, mask.to(images.device))
