"""The type that stands in for a (B, C, H, W) tensor while a network runs on visible cells."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .cell_mask import CellMask, Pair
from .dispatch import TensorLike
from .rows import at_least_float32

Self = TypeVar('Self', bound='SparseFeatureMap')


class SparseFeatureMap(TensorLike, ABC):
    """A feature map that exists only in the visible cells of a :class:`CellMask`.

    It implements torch functions (``__torch_function__``), so an unmodified CNN runs on it.
    The meaning is that of submanifold sparse convolution, as SparK defines it (section 3.1;
    H-GKD Fig. 3): a spatial op (convolution, pooling) is the dense op on the map filled with
    zeros, kept at visible positions; a statistic over space (batch norm, global pooling)
    counts visible positions only. With everything visible it is the dense network.

    An in-place op changes the object it is called on, and writes to its memory where nothing
    else can need what is there; no other map sees it.
    Subclasses are the engines; make one with :func:`hgkd_mm.sparse.sparsify`.

    Args:
        data: what the engine holds.
        mask: the visible cells.
        tile: (th, tw) positions of one cell on this map.
        channels: number of channels C.
    """

    engine: str

    def __init__(self, data: Tensor, mask: CellMask, tile: Pair, channels: int) -> None:
        self.data = data
        self.mask = mask
        self.tile = tile
        self.channels = channels
        self.shared = False

    @property
    def held(self) -> Tensor:
        return self.data

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W) of the dense map this stands for."""
        return torch.Size((self.mask.batch, self.channels, *self.mask.size(self.tile)))

    def __repr__(self) -> str:
        size = 'x'.join(map(str, self.shape))
        return f'SparseFeatureMap({size}, engine={self.engine!r}, {self.mask}, {self.dtype})'

    # Defined by each engine, beside conv2d, max_pool2d, avg_pool2d and repeat ---------------

    @property
    @abstractmethod
    def rows(self) -> Tensor:
        """(R, C) values at visible positions, cell after cell, row by row inside a cell.

        Clone them to keep them: an in-place op on the map may write to the same memory.
        """

    @abstractmethod
    def with_rows(self: Self, rows: Tensor) -> Self:
        """A map of the same mask and tile that takes over these (R, C') rows."""

    @abstractmethod
    def with_data(self: Self, data: Tensor) -> Self:
        """A map of the same mask and tile that takes over this data, channels in axis 1."""

    @abstractmethod
    def pointwise(self: Self, function: Callable[..., Tensor], *others: Tensor) -> Self:
        """``function`` of the values and of operands made by :meth:`operand`."""

    @abstractmethod
    def operand(self, tensor: Tensor) -> Tensor:
        """A dense (B|1, C|1, H|1, W|1) tensor, laid out so that it combines with the data."""

    @abstractmethod
    def to_dense(self, fill: float | Tensor = 0.0) -> Tensor:
        """(B, C, H, W), channels-last in memory: the dense map.

        Args:
            fill: value of hidden positions: a number, or one per channel as a tensor of C
                values of any shape (a mask token), which receives gradients.

        Raises:
            ValueError: the fill has neither one value nor one per channel.
        """

    # The same for all engines --------------------------------------------------------------

    def may_change(self) -> bool:
        """Whether an in-place op may write to the data itself."""
        return False

    def of_mask(self: Self, data: Tensor, mask: CellMask) -> Self:
        """This map with other data of the same shape, in the cells of another mask."""
        return type(self)(data, mask, self.tile, self.channels)

    def share(self: Self) -> Self:
        """Another map of the same values, copied only when one of the two changes."""
        other = copy.copy(self)
        self.shared = other.shared = True
        return other

    def fill_row(self, fill: Tensor) -> Tensor:
        """(1, C): a fill of ``to_dense`` that was given as a tensor."""
        if fill.numel() not in (1, self.channels):
            raise ValueError(
                f'to_dense expects one fill value or one for each of {self.channels} channels, got '
                f'a tensor of shape {tuple(fill.shape)}.'
            )
        return fill.reshape(1, -1).to(self.dtype).expand(1, self.channels)

    def mean_visible(self) -> Tensor:
        """(B, C): mean over the visible positions of each image; 0 where there are none."""
        return self.image_mean(self.rows)

    def image_sum(self, rows: Tensor) -> Tensor:
        """(B, C'): sums of (R, C') rows of this map over each image."""
        if self.mask.per_image is not None:
            return rows.view(self.mask.batch, -1, rows.shape[1]).sum(1)
        return self._ragged_sum(rows).to(rows.dtype)

    def image_mean(self, rows: Tensor) -> Tensor:
        """(B, C'): means of (R, C') rows of this map over each image; 0 where it has none."""
        if self.mask.per_image is not None:
            return rows.view(self.mask.batch, -1, rows.shape[1]).mean(1)
        total, area = self._ragged_sum(rows), self.tile[0] * self.tile[1]
        counts = (self.mask.counts() * area).clamp(min=1).unsqueeze(1)
        return (total / counts.to(total.dtype)).to(rows.dtype)

    def _ragged_sum(self, rows: Tensor) -> Tensor:
        # Added up in float32 for half types, as torch's own sums are.
        dtype = at_least_float32(rows.dtype)
        cells = rows.view(-1, self.tile[0] * self.tile[1], rows.shape[1]).sum(1, dtype=dtype)
        total = rows.new_zeros(self.mask.batch, rows.shape[1], dtype=dtype)
        return total.index_add(0, self.mask.cells()[0], cells)

    def of_image(self, values: Tensor) -> Tensor:
        """(R, C'): for each row the entry of its image in (B, C')."""
        return values.index_select(0, self.mask.images(self.tile[0] * self.tile[1]))
