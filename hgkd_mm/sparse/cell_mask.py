"""Which cells of each image the student sees, and the index tables that follow from it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]


def cached_table(build: Callable) -> Callable:
    """A function of a mask and hashable arguments whose results are kept with the mask."""

    @functools.wraps(build)
    def cached(mask: CellMask, *args: Hashable) -> Any:
        key = build, args
        if key not in mask._tables:
            mask._tables[key] = build(mask, *args)
        return mask._tables[key]

    return cached


class CellMask:
    """Visible cells of a batch of images. **True means visible, everywhere in this project.**

    A mask is a coarse grid over the image: at 224 px with cells of 32 px the grid is 7 x 7.
    At every stage of a network the visible part is then a set of whole tiles, one per
    visible cell (H-GKD Fig. 3, after SparK section 3.1). The object is immutable.

    Args:
        visible: (B, gh, gw) bool. Counts may differ between images, and images may be hidden
            as a whole, as long as the batch shows something.

    Attributes:
        batch, grid: images B, and cells of each, (gh, gw).
        numbers: (N,) long, the visible cells, counted through the whole batch, ascending.
        num_visible: how many these are.
        per_image: visible cells of each image if all images have the same number, else None.

    Raises:
        TypeError: ``visible`` is not a bool tensor.
        ValueError: ``visible`` is not (B, gh, gw), or nothing at all is visible.
    """

    def __init__(self, visible: Tensor) -> None:
        if visible.dtype != torch.bool:
            raise TypeError(
                f'CellMask expects a bool tensor (True = visible), got {visible.dtype}.'
            )
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
        self.visible = visible
        self.device = visible.device
        self.batch, self.grid = visible.shape[0], (visible.shape[1], visible.shape[2])
        self.num_visible = cells.numel()
        self.per_image = per_image
        self.numbers = cells
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

        ``round(gh * gw * (1 - mask_ratio))`` of (gh, gw) cells stay, as in SparK (20 of 49 at
        0.6). No value is read back from the device, which is that of ``generator``.

        Raises:
            ValueError: the ratio is out of range or would leave no visible cell.
        """
        gh, gw = grid
        keep = round(gh * gw * (1 - mask_ratio))
        if not 1 <= keep <= gh * gw:
            raise ValueError(
                f'mask_ratio {mask_ratio} on a {gh} x {gw} grid keeps {keep} cells: set one in '
                '[0, 1), or smaller cells (config keys mask.ratio and mask.cell).'
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

    def __repr__(self) -> str:
        return f'CellMask(batch={self.batch}, grid={self.grid}, visible={self.num_visible})'

    def to(self, device: torch.device | str) -> CellMask:
        """The same mask on another device."""
        if torch.device(device) == self.device:
            return self
        mask = type(self).__new__(type(self))
        mask._setup(self.visible.to(device), self.numbers.to(device), self.per_image)
        return mask

    def at(self, size: Pair) -> Tensor:
        """(B, h, w) bool: the mask on a finer grid, by repetition.

        Raises:
            ValueError: ``size`` (h, w) is not a multiple of the grid.
        """
        th, tw = self.tile(size)
        return self.visible.repeat_interleave(th, 1).repeat_interleave(tw, 2)

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
        image = torch.div(self.numbers, gh * gw, rounding_mode='floor')
        inside = self.numbers - image * (gh * gw)
        row = torch.div(inside, gw, rounding_mode='floor')
        return image, row, inside - row * gw

    @cached_table
    def images(self, area: int) -> Tensor:
        """(R,) long: the image of each row of a map whose cells have ``area`` positions."""
        return self.cells()[0].repeat_interleave(area)

    @cached_table
    def counts(self) -> Tensor:
        """(B,) long: visible cells of each image."""
        return self.visible.flatten(1).sum(1)

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
    def tile_rows(self, height: int) -> Tensor:
        """(N * th,) long: each row of each visible tile in a flattened (B, gh * th, gw) map."""
        gh, gw = self.grid
        image, row, column = self.cells()
        inside = torch.arange(height, device=self.device)
        down = (image * gh + row).view(-1, 1) * height + inside
        return (down * gw + column.view(-1, 1)).flatten()
