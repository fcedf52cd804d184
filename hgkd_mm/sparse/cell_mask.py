"""Which cells of each image the student sees, and the index tables that follow from it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

Pair = tuple[int, int]
Args = ParamSpec('Args')
Table = TypeVar('Table')


def cached_table(
    build: Callable[Concatenate[CellMask, Args], Table],
) -> Callable[Concatenate[CellMask, Args], Table]:
    """A function of a mask and hashable arguments whose results are kept with the mask."""

    @functools.wraps(build)
    def cached(mask: CellMask, *args: Hashable) -> Table:
        key = build, args
        if key not in mask._tables:
            mask._tables[key] = build(mask, *args)
        return mask._tables[key]

    return cached


class CellMask:
    """Visible cells of a batch of images. **True means visible, everywhere in this project.**

    A mask is a coarse grid over the image: at 224 px with cells of 32 px the grid is 7 x 7.
    At every stage of a network the visible part is then a set of whole tiles, one per
    visible cell (H-GKD Fig. 3, after SparK section 3.1). The object is immutable; tables
    derived from it (``cached_table``) are computed once and kept with it.

    Args:
        visible: (B, gh, gw) bool. Per-image counts may differ and an image may be
            entirely hidden, as long as the batch shows something.

    Raises:
        TypeError: ``visible`` is not a bool tensor.
        ValueError: ``visible`` is not (B, gh, gw), or nothing at all is visible.
    """

    def __init__(self, visible: Tensor) -> None:
        if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
            got = visible.dtype if isinstance(visible, Tensor) else type(visible).__name__
            raise TypeError(f'CellMask expects a bool tensor (True = visible), got {got}.')
        if visible.dim() != 3 or 0 in visible.shape:
            raise ValueError(
                f'CellMask expects a grid of shape (B, gh, gw), got {tuple(visible.shape)}.'
            )
        if not bool(visible.any()):
            raise ValueError(
                f'Nothing is visible in this mask of shape {tuple(visible.shape)}: at least one '
                'cell of the batch must be True. Lower the mask ratio (config key mask.ratio).'
            )
        counts = visible.flatten(1).sum(1)
        equal = int(counts[0]) if bool((counts == counts[0]).all()) else None
        self._setup(visible.clone(), visible.flatten().nonzero().flatten(), equal)

    def _setup(self, visible: Tensor, cells: Tensor, per_image: int | None) -> None:
        self._visible = visible
        self._cells = cells
        self._per_image = per_image
        self._tables: dict[Hashable, Any] = {}

    @classmethod
    def random(
        cls,
        *,
        batch: int,
        grid: Pair,
        mask_ratio: float,
        generator: torch.Generator | None = None,
        device: torch.device | str = 'cpu',
    ) -> CellMask:
        """Hides ``mask_ratio`` of the cells, the same number in every image.

        ``round(gh * gw * (1 - mask_ratio))`` cells stay, as in SparK (20 of 49 at 0.6).
        No value is read back from the device.

        Args:
            batch: number of images B.
            grid: (gh, gw) cells.
            mask_ratio: hidden fraction, in [0, 1).
            generator: of random numbers on ``device``; the global one if None.
            device: of the mask.

        Raises:
            ValueError: the ratio is out of range or would leave no visible cell.
        """
        gh, gw = grid
        if batch < 1 or gh < 1 or gw < 1:
            raise ValueError(
                f'A mask needs at least one image and one cell, got {batch} and {grid}.'
            )
        if not 0 <= mask_ratio < 1:
            raise ValueError(
                f'mask_ratio must be in [0, 1), got {mask_ratio} (config key mask.ratio).'
            )
        keep = round(gh * gw * (1 - mask_ratio))
        if keep < 1:
            raise ValueError(
                f'mask_ratio {mask_ratio} on a {gh} x {gw} grid leaves no visible cell: lower it '
                'or use smaller cells (config keys mask.ratio and mask.cell).'
            )
        noise = torch.rand(batch, gh * gw, generator=generator, device=device)
        chosen = noise.argsort(dim=1)[:, :keep].sort(dim=1).values
        offset = torch.arange(batch, device=device).unsqueeze(1) * (gh * gw)
        return cls.of_numbers((chosen + offset).flatten(), batch=batch, grid=grid)

    @classmethod
    def of_numbers(cls, numbers: Tensor, *, batch: int, grid: Pair) -> CellMask:
        """The mask of these visible cells, the same count in every image, see ``numbers``."""
        visible = torch.zeros(batch, *grid, dtype=torch.bool, device=numbers.device)
        visible.view(-1).index_fill_(0, numbers, True)
        mask = cls.__new__(cls)
        mask._setup(visible, numbers, numbers.numel() // batch)
        return mask

    @classmethod
    def full(cls, *, batch: int, grid: Pair, device: torch.device | str = 'cpu') -> CellMask:
        """A mask that hides nothing."""
        return cls.random(batch=batch, grid=grid, mask_ratio=0.0, device=device)

    @property
    def visible(self) -> Tensor:
        """(B, gh, gw) bool, True = visible."""
        return self._visible

    @property
    def numbers(self) -> Tensor:
        """(N,) long: the visible cells, counted through the whole batch, ascending."""
        return self._cells

    @property
    def batch(self) -> int:
        return self._visible.shape[0]

    @property
    def grid(self) -> Pair:
        """Cells per image, (gh, gw)."""
        return self._visible.shape[1], self._visible.shape[2]

    @property
    def device(self) -> torch.device:
        return self._visible.device

    @property
    def num_visible(self) -> int:
        """Visible cells N in the whole batch."""
        return self._cells.numel()

    @property
    def per_image(self) -> int | None:
        """Visible cells of each image if all images have the same number, else None."""
        return self._per_image

    def __repr__(self) -> str:
        return f'CellMask(batch={self.batch}, grid={self.grid}, visible={self.num_visible})'

    def to(self, device: torch.device | str) -> CellMask:
        """The same mask on another device."""
        if torch.device(device) == self.device:
            return self
        mask = type(self).__new__(type(self))
        mask._setup(self._visible.to(device), self._cells.to(device), self._per_image)
        return mask

    def at(self, size: Pair) -> Tensor:
        """The mask on a finer grid, by repetition.

        Args:
            size: (h, w), multiples of the cell grid: a feature map, a teacher's tokens.

        Returns:
            (B, h, w) bool, True = visible.

        Raises:
            ValueError: ``size`` is not a multiple of the grid.
        """
        th, tw = self.tile(size)
        return self._visible.repeat_interleave(th, 1).repeat_interleave(tw, 2)

    def tile(self, size: Pair) -> Pair:
        """Size (th, tw) of one cell on a map of ``size`` (h, w) positions.

        Raises:
            ValueError: ``size`` is not a positive multiple of the grid.
        """
        (h, w), (gh, gw) = size, self.grid
        if h < gh or w < gw or h % gh or w % gw:
            raise ValueError(
                f'A map of {h} x {w} positions does not divide into the mask grid of {gh} x {gw} '
                'cells: sizes must be whole multiples of it. Choose an image size that is a '
                'multiple of the cell, and a cell that is a multiple of the total stride '
                '(config key mask.cell).'
            )
        return h // gh, w // gw

    def size(self, tile: Pair) -> Pair:
        """Size (H, W) of a map on which one cell has (th, tw) positions."""
        return self.grid[0] * tile[0], self.grid[1] * tile[1]

    @cached_table
    def cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, row and column of each visible cell: three (N,) long tensors, in order."""
        gh, gw = self.grid
        image = torch.div(self._cells, gh * gw, rounding_mode='floor')
        inside = self._cells - image * (gh * gw)
        row = torch.div(inside, gw, rounding_mode='floor')
        return image, row, inside - row * gw

    @cached_table
    def counts(self) -> Tensor:
        """(B,) long: visible cells of each image."""
        return self._visible.flatten(1).sum(1)

    @cached_table
    def cell_number(self, ring: int) -> Tensor:
        """(B, gh + 2 ring, gw + 2 ring) int32: number of each visible cell.

        Hidden cells hold N, and cells of the ring around the image hold N + 1.
        """
        gh, gw = self.grid
        hidden, outside = self.num_visible, self.num_visible + 1
        size = (self.batch, gh + 2 * ring, gw + 2 * ring)
        numbers = torch.full(size, outside, dtype=torch.int32, device=self.device)
        numbers[:, ring : ring + gh, ring : ring + gw] = hidden
        image, row, column = self.cells()
        at = (image * size[1] + row + ring) * size[2] + column + ring
        order = torch.arange(self.num_visible, dtype=torch.int32, device=self.device)
        return numbers.view(-1).scatter_(0, at, order).view(size)

    @cached_table
    def positions(self, tile: Pair) -> Tensor:
        """(R,) long: index of each visible position in a flattened (B, H, W) map.

        Rows are ordered by cell, then row by row inside the cell's tile: R = N * th * tw.
        """
        columns = torch.arange(tile[1], device=self.device)
        return (self.tile_rows(tile[0]).view(-1, 1) * tile[1] + columns).flatten()

    @cached_table
    def tile_rows(self, height: int) -> Tensor:
        """(N * th,) long: each row of each visible tile in a flattened (B, gh * th, gw) map.

        Positions side by side in a tile are so in the map, whatever the tile's width, so that
        whole rows of tiles are copied at once.
        """
        gh, gw = self.grid
        image, row, column = self.cells()
        inside = torch.arange(height, device=self.device)
        down = (image * gh + row).view(-1, 1) * height + inside
        return (down * gw + column.view(-1, 1)).flatten()
