"""Where a convolution of rows takes place, and how each of its three products is computed."""

from __future__ import annotations

from dataclasses import dataclass

from .cell_mask import CellMask, Pair
from .window import Window


@dataclass(frozen=True)
class ConvPlan:
    """Geometry and methods of one convolution.

    Attributes:
        mask: the visible cells.
        tile: tile of the input map, (th, tw); it has R = N * th * tw rows.
        window: the kernel.
        groups: of channels that are convolved apart.
        forward, grad_input, grad_weight: 'halo' | 'canvas' | 'columns' | 'taps'; the last two
            know one group only.
    """

    mask: CellMask
    tile: Pair
    window: Window
    groups: int
    forward: str
    grad_input: str
    grad_weight: str

    @classmethod
    def choose(
        cls, mask: CellMask, tile: Pair, window: Window, groups: int, device: str
    ) -> ConvPlan:
        """The methods that were fastest for tiles of this size.

        Measured on CPU, per stage of ResNet-50 (docs/speed.md): torch's convolution on a batch
        of tiles wins while tiles are large; below, matrix products on gathered rows, and on
        the smallest tiles products per tap, since most neighbours are hidden there. With
        groups, tiles go through the full map where the border that the window adds to them
        costs more than the hidden part of the map does.
        """
        small, stride_one = min(tile), window.stride == (1, 1)
        if cls.on_map(device):
            methods = ('canvas',) * 3
        elif groups > 1:
            method = 'halo' if _border_pays(mask, tile, window) else 'canvas'
            methods = method, method if stride_one or small >= 16 else 'canvas', method
        elif small >= 8:
            # Of a stem, the table of all taps costs more than torch's gradient of the weight.
            grad_weight = 'halo' if stride_one or small >= 16 else 'columns'
            methods = 'halo', 'halo' if stride_one else 'columns', grad_weight
        elif small >= 4 and stride_one:
            methods = 'halo', 'halo', 'columns'
        else:
            methods = ('taps',) * 3
        return cls(mask, tile, window, groups, *methods)

    @staticmethod
    def on_map(device: str) -> bool:
        """Whether convolutions and max poolings read full maps on this kind of device.

        On an NVIDIA GPU arithmetic is nearly free beside memory and the host's time: the full map
        needs one small index table for all layers of a stage, where a border or taps need one per
        window and gather their neighbours in short pieces (docs/gpu.md).
        """
        return device == 'cuda'

    @property
    def backward_on_canvas(self) -> bool:
        """Whether both gradients come from the full map, so that one call gives them."""
        return self.grad_input == self.grad_weight == 'canvas'

    @property
    def out_tile(self) -> Pair:
        """Tile of the output map."""
        return self.window.out_tile(self.mask, self.tile)


def _border_pays(mask: CellMask, tile: Pair, window: Window) -> bool:
    """Whether visible tiles with their border are less work than the full map.

    Of the same area the full map is about 2.6 times as slow: it is filled and copied as well.
    """
    (height, width), (th, tw), (gh, gw) = window.reach(mask, tile), tile, mask.grid
    return mask.num_visible * height * width <= 2.6 * mask.batch * gh * gw * th * tw
