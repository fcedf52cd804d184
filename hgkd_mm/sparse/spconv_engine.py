"""An optional engine: convolutions by spconv, everything else as on tiles.

Importing this module needs the package spconv-cu120; ``find_engine`` does so when asked for
``engine='spconv'``, and nothing else does.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from .autocast import autocast_dtype
from .cell_mask import CellMask, Pair
from .dispatch import refuse
from .spconv_wheel import check_wheels, installed_wheels
from .tiles import TileMap
from .window import Window, tap_rows

check_wheels(installed_wheels())
with warnings.catch_warnings():
    # It calls decorators of torch by the names they had before torch 2.4.
    warnings.simplefilter('ignore', FutureWarning)
    from spconv.pytorch import ops

# What its matrix products and additions exist for, by kind of device. The library adds up the
# taps in the type of the values, so float16 is left to GPUs, where it is the type to train in.
PRECISIONS = {
    'cpu': (torch.float32, torch.float64),
    'cuda': (torch.float32, torch.float16),
}
_INSTEAD = "use engine='tiles' (config key model.engine)."


class SpconvMap(TileMap):
    """Rows of visible positions, which spconv calls features, convolved by spconv.

    The pairs of rows that a kernel joins are made here and not by spconv, whose strided
    convolution would also compute positions of hidden cells next to visible ones: up to twice
    as many outputs. Windows that leave every position in its place run as spconv's submanifold
    convolution, the others as its general one, both by the algorithm ``Native``, the only one
    that takes pairs. A 1 x 1 convolution is one product of rows in spconv as well; it stays
    that of ``tiles``.
    """

    engine = 'spconv'

    def with_rows(self, rows: Tensor) -> SpconvMap:
        return SpconvMap(rows, self.mask, self.tile, rows.shape[1])

    def _at(self, rows: Tensor, tile: Pair) -> SpconvMap:
        return SpconvMap(rows, self.mask, tile, rows.shape[1])

    def conv2d(self, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> SpconvMap:
        """Convolution without groups.

        Raises:
            UnsupportedOpError: with groups, or of a type that spconv cannot compute in.
        """
        if groups != 1:
            raise refuse('conv2d', f'spconv has no groups, this layer has {groups}: {_INSTEAD}')
        dtype = self._precision()
        if window.is_pointwise():
            return super().conv2d(weight, bias, window, groups)
        rows = self.data
        if dtype != rows.dtype:  # under autocast
            rows, weight = rows.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if (weight.dtype, weight.device) != (rows.dtype, rows.device):
            # spconv would read the memory of one as if it were that of the other.
            raise refuse(
                'conv2d',
                f'the weight is {weight.dtype} on {weight.device}, the map {rows.dtype} on '
                f'{rows.device}; both must be the same.',
            )
        out = _Conv.apply(rows, weight, Pairs.of(self.mask, self.tile, window))
        out = out if bias is None else out.add_(bias)
        return self._at(out, window.out_tile(self.mask, self.tile))

    def _precision(self) -> torch.dtype:
        """The type to convolve in: that of the values, or autocast's."""
        kind, dtype = self.device.type, self.dtype
        cast = autocast_dtype(kind)
        if cast is not None and dtype != torch.float64:
            dtype = cast
        known = PRECISIONS.get(kind, ())
        if dtype not in known:
            names = ' and '.join(map(str, known)) or 'nothing'
            raise refuse(
                'conv2d',
                f'spconv does not compute in {dtype} on {kind}, where it knows {names}: {_INSTEAD}',
            )
        return dtype


class Pairs(NamedTuple):
    """Which row of the input each tap adds to which row of the output, as spconv wants it.

    Attributes:
        rows: (2, kh * kw, L) int32, inputs and outputs, -1 behind the last pair of a tap.
        counts: (kh * kw,) int32 on the CPU, pairs of each tap; spconv reads them there.
        outputs: rows R' of the output.
        in_place: whether the middle tap reads every position itself and each other tap is
            the mirror image of another, as submanifold convolution demands.
    """

    rows: Tensor
    counts: Tensor
    outputs: int
    in_place: bool

    @classmethod
    def of(cls, mask: CellMask, tile: Pair, window: Window) -> Pairs:
        """The pairs of visible positions, kept with the mask.

        Args:
            mask: the visible cells; output positions outside of them are not computed.
            tile: tile of the input map.
            window: the kernel.
        """

        def build() -> Pairs:
            index = tap_rows(mask, tile, window).t()
            taps, outputs = index.shape
            visible = index < mask.num_visible * tile[0] * tile[1]
            counts = visible.sum(1)
            tap, output = visible.nonzero(as_tuple=True)
            place = torch.arange(len(tap), device=tap.device)
            place -= (counts.cumsum(0) - counts)[tap]
            longest = max(1, int(counts.max()))  # spconv takes no empty tensor
            rows = torch.full((2, taps, longest), -1, dtype=torch.int32, device=tap.device)
            rows[0, tap, place] = index[tap, output].int()
            rows[1, tap, place] = output.int()
            in_place = taps % 2 == 1 and window.own_tap == taps // 2
            return cls(rows, counts.int().cpu(), outputs, in_place)

        return mask.table(('spconv_pairs', tile, window), build)


class _Conv(torch.autograd.Function):
    """spconv's products and their gradients.

    Its own autograd function is not used: under CUDA's autocast it casts to float16 whatever
    autocast was asked for, and on an error it prints and may write files.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.pairs = pairs
        return ops.indice_conv(
            rows,
            _by_position(weight),
            pairs.rows,
            pairs.counts,
            pairs.outputs,
            subm=pairs.in_place,
            algo=ops.ConvAlgo.Native,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        grad_rows, grad_weight = ops.indice_conv_backward(
            rows,
            _by_position(weight),
            grad,
            pairs.rows,
            pairs.counts,
            subm=pairs.in_place,
            algo=ops.ConvAlgo.Native,
        )
        return grad_rows, grad_weight.permute(0, 3, 1, 2), None


def _by_position(weight: Tensor) -> Tensor:
    """(Co, kh, kw, C), contiguous: the order in which spconv 2.3 holds weights (KRSC)."""
    return weight.permute(0, 2, 3, 1).contiguous()
