"""The reference engine: dense ops, then zeros at hidden positions. Saves nothing, as SparK."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair, cached_table
from .feature_map import SparseFeatureMap
from .window import Geometry


class MaskedDenseMap(SparseFeatureMap):
    """Holds the dense (B, C, H, W) map with zeros at hidden positions."""

    engine = 'masked_dense'

    @classmethod
    def of(cls, images: Tensor, mask: CellMask) -> MaskedDenseMap:
        """Images with their hidden cells set to zero; see ``sparsify``."""
        return _keep_visible(images, mask, mask.tile(tuple(images.shape[-2:])))

    @property
    def rows(self) -> Tensor:
        flat = self.data.permute(0, 2, 3, 1).reshape(-1, self.channels)
        return flat.index_select(0, _positions(self.mask, self.tile))

    def with_rows(self, rows: Tensor) -> MaskedDenseMap:
        batch, _, h, w = self.shape
        flat = rows.new_zeros(batch * h * w, rows.shape[1])
        flat = flat.index_copy(0, _positions(self.mask, self.tile), rows)
        return self.with_data(flat.view(batch, h, w, -1).permute(0, 3, 1, 2))

    def with_data(self, data: Tensor) -> MaskedDenseMap:
        return MaskedDenseMap(data, self.mask, self.tile, data.shape[1])

    def operand(self, tensor: Tensor) -> Tensor:
        return tensor

    def pointwise(self, function: Callable[..., Tensor], *others: Tensor) -> MaskedDenseMap:
        data = function(self.data, *others)
        return self if data is self.data else _keep_visible(data, self.mask, self.tile)

    def conv2d(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> MaskedDenseMap:
        window = geometry.window
        data, padding = window.on_dense(self.data)
        data = F.conv2d(data, weight, bias, window.stride, padding, window.dilation, groups)
        return _keep_visible(data, self.mask, geometry.out_tile)

    def max_pool2d(self, geometry: Geometry, outside: float = -math.inf) -> MaskedDenseMap:
        window = geometry.window
        data, padding = window.on_dense(self.data, outside, own=-math.inf, pools=True)
        how = window.kernel, window.stride, padding, window.dilation, window.ceil_mode
        return _keep_visible(F.max_pool2d(data, *how), self.mask, geometry.out_tile)

    def avg_pool2d(self, geometry: Geometry, count_include_pad: bool) -> MaskedDenseMap:
        window = geometry.window
        data, padding = window.on_dense(self.data, pools=True)
        how = window.kernel, window.stride, padding, window.ceil_mode, count_include_pad
        return _keep_visible(F.avg_pool2d(data, *how), self.mask, geometry.out_tile)

    def repeat(self, scale: Pair) -> MaskedDenseMap:
        data = F.interpolate(self.data, scale_factor=tuple(map(float, scale)), mode='nearest')
        tile = self.tile[0] * scale[0], self.tile[1] * scale[1]
        return MaskedDenseMap(data, self.mask, tile, self.channels)

    def to_dense(self, fill: float | Tensor = 0.0) -> Tensor:
        if isinstance(fill, Tensor):
            fill = self.fill_row(fill).view(1, -1, 1, 1)
        out = torch.where(_visible(self.mask, self.tile), self.data, fill)
        return out.contiguous(memory_format=torch.channels_last)


def _keep_visible(data: Tensor, mask: CellMask, tile: Pair) -> MaskedDenseMap:
    # where, not a product: 0 * NaN is NaN, and nothing under the mask may count.
    kept = torch.where(_visible(mask, tile), data, 0)
    return MaskedDenseMap(kept, mask, tile, data.shape[1])


@cached_table
def _visible(mask: CellMask, tile: Pair) -> Tensor:
    """(B, 1, H, W) bool: the mask on a map whose cells are ``tile`` large."""
    return mask.at(mask.size(tile)).unsqueeze(1)


@cached_table
def _positions(mask: CellMask, tile: Pair) -> Tensor:
    """(R,) long: each visible position in a flattened (B, H, W) map, cell by cell.

    Not by the tables of 'tiles', of which this engine is the independent reference.
    """
    height, width = mask.size(tile)
    index = torch.arange(mask.batch * height * width, device=mask.device)
    cells = index.view(mask.batch, mask.grid[0], tile[0], mask.grid[1], tile[1])
    return cells.transpose(2, 3)[mask.visible].flatten()
