"""Sparse computation for masked images: run any CNN on visible cells only.

Needs torch and nothing else (the optional engine 'spconv' apart)::

    mask = CellMask.random(batch=8, grid=(7, 7), mask_ratio=0.6)
    maps = backbone(sparsify(images, mask))     # an unmodified network
    maps[-1].to_dense()                         # (B, C, H, W)
"""

from torch import Tensor

from . import norm, ops, views, window_ops  # noqa: F401  register functions of a SparseFeatureMap
from .cell_mask import CellMask
from .cuda_graph import GraphedNetwork
from .dispatch import UnsupportedOpError
from .feature_map import SparseFeatureMap
from .masked_dense import MaskedDenseMap
from .prepare import prepare
from .spconv import SpconvMap, load_ops
from .tiles import TileMap

__all__ = [
    'ENGINES',
    'ENGINE_NAMES',
    'CellMask',
    'GraphedNetwork',
    'SparseFeatureMap',
    'UnsupportedOpError',
    'find_engine',
    'prepare',
    'sparsify',
]

# Engines that run any network, in any type.
ENGINES: dict[str, type[TileMap] | type[MaskedDenseMap]] = {
    'tiles': TileMap,
    'masked_dense': MaskedDenseMap,
}
# With the one that needs a package and does not run every network.
ENGINE_NAMES = (*ENGINES, 'spconv')


def find_engine(name: str) -> type[TileMap] | type[MaskedDenseMap]:
    """The class of the engine of this name.

    Raises:
        ValueError: unknown engine.
        ImportError: the package that the engine needs is missing, or gives wrong results.
    """
    if name == 'spconv':
        load_ops()
        return SpconvMap
    if name not in ENGINES:
        raise ValueError(f"Unknown engine '{name}': choose one of {list(ENGINE_NAMES)}.")
    return ENGINES[name]


def sparsify(images: Tensor, mask: CellMask, engine: str = 'tiles') -> SparseFeatureMap:
    """A stand-in for images that an unmodified CNN accepts; it exists in the visible cells only.

    Args:
        images: (B, C, H, W), H and W multiples of the mask grid.
        mask: which cells are visible; True = visible.
        engine: 'tiles' (fast), 'masked_dense' (the reference, as SparK computes) or 'spconv'
            (convolutions by that library, which must be installed; no groups, no bfloat16).

    Raises:
        ValueError: unknown engine; images that are not (B, C, H, W), of another batch size
            than the mask, or not divisible into its cells.
        ImportError: no usable spconv is installed, see :func:`find_engine`.
    """
    kind = find_engine(engine)
    if images.dim() != 4 or images.shape[0] != mask.batch:
        raise ValueError(
            f'sparsify expects images of shape (B, C, H, W), B = {mask.batch} as of the mask, got '
            f'{tuple(images.shape)}.'
        )
    return kind.of(images, mask.to(images.device))
