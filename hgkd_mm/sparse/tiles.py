"""The fast engine: only visible positions exist, as rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import autocast_dtype
from .cell_mask import CellMask, Pair
from .conv import conv_rows
from .conv_plan import ConvPlan
from .feature_map import SparseFeatureMap
from .gather import gather_halo, map_to_rows, rows_to_map, rows_to_tiles
from .max_pool import max_pool_rows
from .products import linear, rows_of
from .window import Window, halo_rows


class TileMap(SparseFeatureMap):
    """Holds (R, C) rows, one per visible position, cell after cell (R = N * th * tw).

    1 x 1 convolutions, norms and activations are dense math on fewer rows. Windows reach
    across cells through index tables that the mask keeps; hidden neighbours read as zero.
    """

    engine = 'tiles'

    @classmethod
    def of(cls, images: Tensor, mask: CellMask) -> TileMap:
        """Rows of the visible pixels; hidden ones do not count. See ``sparsify``."""
        tile = mask.tile(tuple(images.shape[-2:]))
        return cls(map_to_rows(images, mask, tile), mask, tile, images.shape[1])

    @property
    def rows(self) -> Tensor:
        return self.data

    def with_rows(self, rows: Tensor) -> TileMap:
        return TileMap(rows, self.mask, self.tile, rows.shape[1])

    def _at(self, rows: Tensor, tile: Pair) -> TileMap:
        return TileMap(rows, self.mask, tile, rows.shape[1])

    def operand(self, tensor: Tensor) -> Tensor:
        batch, channels, height, width = tensor.shape
        if (height, width) == (1, 1):
            flat = tensor.reshape(batch, channels)
            return flat if batch == 1 else self.of_image(flat)
        full = tensor.expand(self.mask.batch, channels, *self.shape[-2:])
        return map_to_rows(full, self.mask, self.tile)

    def pointwise(self, function: Callable[..., Tensor], *others: Tensor) -> TileMap:
        data = function(self.data, *others)
        return self if data is self.data else self.with_rows(data)

    def may_change(self) -> bool:
        # A view may show the output of an op that keeps it for its gradient.
        leaf = self.data.is_leaf and self.data.requires_grad
        return not self.shared and not leaf and not self.data._is_view()

    def conv2d(self, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> TileMap:
        tile = window.out_tile(self.mask, self.tile)
        rows = self.data
        dtype = autocast_dtype(rows.device.type)
        if dtype is not None and rows.dtype != torch.float64:
            rows, weight = rows.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if window.is_pointwise() and groups == 1:
            if window.stride != (1, 1):
                rows = _Every.apply(rows.view(-1, *self.tile, self.channels), window.stride)
            return self._at(linear(rows, weight.flatten(1), bias), tile)
        plan = ConvPlan.choose(self.mask, self.tile, window, groups, rows.device.type)
        return self._at(conv_rows(rows, weight, bias, plan), tile)

    def max_pool2d(self, window: Window, outside: float = -math.inf) -> TileMap:
        rows = max_pool_rows(self.data, self.mask, self.tile, window, outside)
        return self._at(rows, window.out_tile(self.mask, self.tile))

    def avg_pool2d(self, window: Window, count_include_pad: bool) -> TileMap:
        tile = window.out_tile(self.mask, self.tile)
        if window.kernel == window.stride and window.padding == window.behind == (0, 0):
            out = F.avg_pool2d(rows_to_tiles(self.data, self.tile), window.kernel)
            return self._at(rows_of(out), tile)
        halo = gather_halo(self.data, self.mask, self.tile, window)
        out = F.avg_pool2d(halo, window.kernel, window.stride)
        if not count_include_pad:
            out = out / self._share_inside(window, halo.dtype)
        return self._at(rows_of(out), tile)

    def _share_inside(self, window: Window, dtype: torch.dtype) -> Tensor:
        """(N, 1, th', tw'): the part of each window that lies inside the image."""

        def build() -> Tensor:
            index = halo_rows(self.mask, self.tile, window)
            inside = (index <= self.data.shape[0]).unsqueeze(1).to(dtype)
            return F.avg_pool2d(inside, window.kernel, window.stride)

        return self.mask.table(('share_inside', self.tile, window, dtype), build)

    def repeat(self, scale: Pair) -> TileMap:
        tiles = self.data.view(-1, *self.tile, self.channels)
        tiles = tiles.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)
        return self._at(tiles.reshape(-1, self.channels), (tiles.shape[1], tiles.shape[2]))

    def join(self, parts: list[Tensor]) -> TileMap:
        return self.with_rows(torch.cat(parts, dim=1))

    def parts(self, sizes: list[int]) -> list[TileMap]:
        # Contiguous, because everything downstream views rows as tiles.
        return [self.with_rows(p.contiguous()) for p in torch.split(self.data, sizes, dim=1)]

    def select(self, channels: Tensor) -> TileMap:
        return self.with_rows(self.data.index_select(1, channels))

    def to_dense(self, fill: float | Tensor = 0.0) -> Tensor:
        fill = self.fill_row(fill) if isinstance(fill, Tensor) else fill
        return rows_to_map(self.data, self.mask, self.tile, fill)


class _Every(torch.autograd.Function):
    """Rows at every stride-th position of each tile, which is where a 1 x 1 reads.

    Slicing does the same; its gradient would fill and copy the whole map once per axis.
    """

    @staticmethod
    def forward(ctx, tiles: Tensor, stride: Pair) -> Tensor:
        ctx.shape, ctx.stride = tiles.shape, stride
        # Contiguous, or a view would keep the whole map alive for the gradient.
        return tiles[:, :: stride[0], :: stride[1]].reshape(-1, tiles.shape[3]).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.new_zeros(ctx.shape)
        part = out[:, :: ctx.stride[0], :: ctx.stride[1]]
        part.copy_(grad.view(part.shape))
        return out, None
