"""The type that stands in for a (B, C, H, W) tensor while a network runs on visible cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from .cell_mask import CellMask, Pair
from .dispatch import HANDLERS, refuse
from .window import Window

Self = TypeVar('Self', bound='SparseFeatureMap')


class SparseFeatureMap(ABC):
    """A feature map that exists only in the visible cells of a :class:`CellMask`.

    It answers torch functions (``__torch_function__``), so an unmodified CNN runs on it.
    The meaning is that of submanifold sparse convolution, as SparK defines it (section 3.1;
    H-GKD Fig. 3): a spatial op (convolution, pooling) is the dense op on the map filled with
    zeros, kept at visible positions; a statistic over space (batch norm, global pooling)
    counts visible positions only. With everything visible it is the dense network.

    An in-place op replaces the data of the object it is called on. Maps never share memory:
    the parts that ``split`` gives are copies.
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

    # What a tensor tells of itself ---------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W) of the dense map this stands for."""
        (gh, gw), (th, tw) = self.mask.grid, self.tile
        return torch.Size((self.mask.batch, self.channels, gh * th, gw * tw))

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """Where the values live."""
        return self.data.device

    @property
    def is_cuda(self) -> bool:
        """Whether the values live on a CUDA device."""
        return self.data.is_cuda

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow through the values."""
        return self.data.requires_grad

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Shape of the dense map, or its extent along ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Always 4."""
        return 4

    def numel(self) -> int:
        """Number of values of the dense map."""
        return self.shape.numel()

    def __repr__(self) -> str:
        size = 'x'.join(map(str, self.shape))
        return f'SparseFeatureMap({size}, engine={self.engine!r}, {self.mask}, {self.dtype})'

    # What an engine provides ---------------------------------------------------------------

    @property
    @abstractmethod
    def rows(self) -> Tensor:
        """(R, C) values at visible positions, ordered as ``mask.positions(tile)``."""

    @abstractmethod
    def with_rows(self: Self, rows: Tensor) -> Self:
        """A map of the same mask and tile that holds these (R, C') rows."""

    @abstractmethod
    def pointwise(self: Self, function: Callable[..., Tensor], *others: Tensor) -> Self:
        """``function`` of the values and of operands made by :meth:`operand`."""

    @abstractmethod
    def operand(self, tensor: Tensor) -> Tensor:
        """A dense (B|1, C|1, H|1, W|1) tensor, laid out so that it combines with the data."""

    @abstractmethod
    def conv2d(
        self: Self, weight: Tensor, bias: Tensor | None, window: Window, groups: int
    ) -> Self:
        """Convolution."""

    @abstractmethod
    def max_pool2d(self: Self, window: Window) -> Self:
        """Maximum over windows; hidden positions count as 0, outside ones do not count."""

    @abstractmethod
    def avg_pool2d(self: Self, window: Window, count_include_pad: bool) -> Self:
        """Mean over windows; hidden positions count as 0."""

    @abstractmethod
    def join(self: Self, parts: list[Tensor]) -> Self:
        """Data of several maps of this mask and tile, concatenated along the channels."""

    @abstractmethod
    def split(self: Self, sizes: list[int]) -> list[Self]:
        """Consecutive groups of channels."""

    @abstractmethod
    def to_dense(self, fill: float | Tensor = 0.0) -> Tensor:
        """The dense map.

        Args:
            fill: value of hidden positions: a number, or one per channel as a tensor of C
                values of any shape (a mask token), which receives gradients.

        Returns:
            (B, C, H, W), channels-last in memory.
        """

    def fill_row(self, fill: Tensor) -> Tensor:
        """(1, C): a fill of ``to_dense`` that was given as a tensor.

        Raises:
            ValueError: it has neither one value nor one per channel.
        """
        if fill.numel() not in (1, self.channels):
            raise ValueError(
                f'to_dense wants one fill value or one for each of {self.channels} channels, got '
                f'a tensor of shape {tuple(fill.shape)}.'
            )
        return fill.reshape(1, -1).to(self.dtype).expand(1, self.channels)

    def mean_visible(self) -> Tensor:
        """(B, C): mean over the visible positions of each image; 0 where there are none."""
        mask, rows = self.mask, self.rows
        if mask.per_image is not None:
            return rows.view(mask.batch, -1, self.channels).mean(1)
        area = self.tile[0] * self.tile[1]
        per_cell = rows.view(-1, area, self.channels).sum(1)
        total = rows.new_zeros(mask.batch, self.channels).index_add(0, mask.cells()[0], per_cell)
        return total / (mask.counts() * area).clamp(min=1).unsqueeze(1).to(total.dtype)

    # Torch functions -----------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        handler = HANDLERS.get(func)
        if handler is None:
            name = getattr(func, '__qualname__', None) or getattr(func, '__name__', str(func))
            raise refuse(
                name,
                'a SparseFeatureMap does not know this op. Run the network dense, or add a '
                'handler in hgkd_mm/sparse/ops.py.',
            )
        return handler(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name in ('data', 'mask', 'tile', 'channels'):
            raise AttributeError(name)
        method = getattr(Tensor, name, None)
        if method is None:
            raise AttributeError(f'{type(self).__name__} has no attribute {name!r}.')
        if not callable(method):
            raise refuse(f'Tensor.{name}', 'a SparseFeatureMap does not have this attribute.')

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.__torch_function__(method, (type(self),), (self, *args), kwargs)

        return call

    def __add__(self, other: Any) -> Any:
        return torch.add(self, other)

    def __sub__(self, other: Any) -> Any:
        return torch.sub(self, other)

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)

    def __truediv__(self, other: Any) -> Any:
        return torch.div(self, other)

    def __neg__(self) -> Any:
        return torch.neg(self)

    def _no_operator(self, *_: Any) -> Any:
        raise refuse('operator', 'a SparseFeatureMap has + - * / only; compare or index rows.')

    __getitem__ = __pow__ = __rtruediv__ = __matmul__ = __bool__ = __len__ = _no_operator
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no_operator
    __hash__ = object.__hash__

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Any:
        return torch.neg(self) + other

    def __iadd__(self, other: Any) -> Any:
        return self.add_(other)

    def __isub__(self, other: Any) -> Any:
        return self.sub_(other)

    def __imul__(self, other: Any) -> Any:
        return self.mul_(other)

    def __itruediv__(self, other: Any) -> Any:
        return self.div_(other)
