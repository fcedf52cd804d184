"""The fast engine: only visible positions exist, as rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import CellMask, Pair, cached_table
from .conv import Conv, choose_method, conv_rows, full_map_pays
from .feature_map import SparseFeatureMap
from .rows import (
    empty_map,
    gather,
    linear,
    map_to_rows,
    rows_of,
    rows_to_map,
    rows_to_tiles,
    visible_of,
)
from .window import Geometry, halo_rows

_AUTOCAST_BY_DEVICE = tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 4)


class TileMap(SparseFeatureMap):
    """Holds (R, C) rows, one per visible position, cell after cell (R = N * th * tw).

    Windows reach across cells through index tables kept with the mask.
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
        return self._at(rows, self.tile)

    def with_data(self, data: Tensor) -> TileMap:
        # Contiguous, because everything downstream views rows as tiles.
        return self._at(data.contiguous(), self.tile)

    def _at(self, rows: Tensor, tile: Pair) -> TileMap:
        return type(self)(rows, self.mask, tile, rows.shape[1])

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

    def conv2d(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> TileMap:
        """Convolution."""
        rows, window, device = self.data, geometry.window, self.device.type
        dtype = autocast_dtype(device)
        if dtype is not None and rows.dtype != torch.float64:
            rows, weight = rows.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if window.is_pointwise() and groups == 1:
            if window.stride != (1, 1):
                rows = _Every.apply(rows.view(-1, *self.tile, self.channels), window.stride)
            return self._at(linear(rows, weight.flatten(1), bias), geometry.out_tile)
        conv = Conv(self.mask, geometry, groups)
        method = choose_method(conv, full_map_pays(device))
        return self._at(conv_rows(rows, weight, bias, conv, method), geometry.out_tile)

    def max_pool2d(self, geometry: Geometry, outside: float = -math.inf) -> TileMap:
        """Maximum over windows; hidden positions count as 0, padding as ``outside``."""
        if full_map_pays(self.device.type):
            rows = _MaxPoolOfMap.apply(self.data, self.mask, geometry, outside)
        else:
            rows = _max_pool_of_halo(self.data, self.mask, geometry, outside)
        return self._at(rows, geometry.out_tile)

    def avg_pool2d(self, geometry: Geometry, count_include_pad: bool) -> TileMap:
        """Mean over windows; hidden positions count as 0."""
        window = geometry.window
        if window.kernel == window.stride and window.padding == window.behind == (0, 0):
            out = F.avg_pool2d(rows_to_tiles(self.data, self.tile), window.kernel)
            return self._at(rows_of(out), geometry.out_tile)
        halo = gather(self.data, halo_rows(self.mask, geometry))
        out = F.avg_pool2d(halo, window.kernel, window.stride)
        if not count_include_pad:
            out = out / _share_inside(self.mask, geometry, halo.dtype)
        return self._at(rows_of(out), geometry.out_tile)

    def repeat(self, scale: Pair) -> TileMap:
        """Each position ``scale`` times downwards and to the right (nearest upsampling)."""
        tiles = self.data.view(-1, *self.tile, self.channels)
        tiles = tiles.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)
        return self._at(tiles.reshape(-1, self.channels), (tiles.shape[1], tiles.shape[2]))

    def to_dense(self, fill: float | Tensor = 0.0) -> Tensor:
        fill = self.fill_row(fill) if isinstance(fill, Tensor) else fill
        return rows_to_map(self.data, self.mask, self.tile, fill)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type that autocast gives a matrix product on this kind of device, None where off."""
    if _AUTOCAST_BY_DEVICE:
        on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if on else None
    if device_type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


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


def _max_pool_of_halo(rows: Tensor, mask: CellMask, geometry: Geometry, outside: float) -> Tensor:
    """(R', C): by torch's pooling of tiles with their border."""
    window, index = geometry.window, halo_rows(mask, geometry)
    zero = rows.new_zeros(1, rows.shape[1])
    filled = torch.cat([rows, zero, torch.full_like(zero, outside)])
    # Long, because its gradient adds up: at int32 positions torch takes a slower way.
    halo = filled.index_select(0, index.flatten().long()).view(*index.shape, -1)
    halo = halo.permute(0, 3, 1, 2)
    return rows_of(F.max_pool2d(halo, window.kernel, window.stride, 0, window.dilation))


class _MaxPoolOfMap(torch.autograd.Function):
    """By torch's pooling of the full map, of which only the visible part is saved."""

    @staticmethod
    def forward(ctx, rows: Tensor, mask: CellMask, geometry: Geometry, outside: float) -> Tensor:
        window, tile, out_tile = geometry[:3]
        dense = rows_to_map(rows, mask, tile)
        dense, padding = window.on_dense(dense, outside, own=-math.inf, pools=True)
        ctx.how = window.kernel, window.stride, padding, window.dilation, window.ceil_mode
        ctx.mask, ctx.geometry, ctx.shape = mask, geometry, dense.shape
        out, chosen = torch.ops.aten.max_pool2d_with_indices(dense, *ctx.how)
        ctx.save_for_backward(visible_of(chosen, mask, out_tile))
        return visible_of(out, mask, out_tile)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (chosen,) = ctx.saved_tensors
        mask, (window, tile, out_tile) = ctx.mask, ctx.geometry[:3]
        # Hidden outputs choose position 0, to which their gradient of 0 adds nothing.
        outputs, chosen = (rows_to_map(t, mask, out_tile) for t in (grad.contiguous(), chosen))
        # Of the input only the shape is read.
        image = empty_map(grad, ctx.shape)
        wide = torch.ops.aten.max_pool2d_with_indices_backward(outputs, image, *ctx.how, chosen)
        return visible_of(window.cut(wide, mask.size(tile)), mask, tile), None, None, None


@cached_table
def _share_inside(mask: CellMask, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """(N, 1, th', tw'): the part of each window that lies inside the image."""
    rows = mask.num_visible * geometry.tile[0] * geometry.tile[1]
    inside = (halo_rows(mask, geometry) <= rows).unsqueeze(1).to(dtype)
    return F.avg_pool2d(inside, geometry.window.kernel, geometry.window.stride)
