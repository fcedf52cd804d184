"""An optional engine: convolutions by the package spconv, everything else as on tiles."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from .cell_mask import CellMask, cached_table
from .dispatch import refuse
from .tiles import TileMap, autocast_dtype
from .window import Geometry, tap_rows

INSTALL = 'pip install spconv-cu120==2.3.6 cumm-cu120==0.4.11'
_INSTEAD = "use engine='tiles' (config key model.engine)."
# Supported types by kind of device. spconv adds up the taps in the type of the values, so
# float16 is left to GPUs, where it is the type to train in.
PRECISIONS = {
    'cpu': (torch.float32, torch.float64),
    'cuda': (torch.float32, torch.float16),
}


def installed_wheels() -> list[str]:
    """Names of the installed distributions of spconv and of cumm, which it is built on."""
    # The name of a distribution whose metadata is broken is None.
    names = {re.sub('[-_.]+', '-', d.name or '').lower() for d in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r'(spconv|cumm)(-.+)?', name))


def check_wheels(names: Iterable[str]) -> None:
    """Checks that a wheel of spconv is installed that is right on any number of threads.

    Args:
        names: installed distributions, as :func:`installed_wheels` gives them.

    Raises:
        ImportError: the wheel made for CPUs is among them, or no wheel is.
    """
    found = list(names)
    # All wheels fill one folder: beside this one no other can be trusted either.
    if 'spconv' in found:
        raise ImportError(
            "engine='spconv' does not work with the package 'spconv': this CPU-only wheel gives "
            'wrong results, without an error, as soon as torch has more than one thread. Replace '
            f'it (pip uninstall -y {" ".join(found)}; {INSTALL}), or {_INSTEAD}'
        )
    if not any(re.fullmatch(r'spconv-cu\d+', name) for name in found):
        raise ImportError(
            "engine='spconv' needs the package spconv-cu120, which is not installed (found: "
            f'{", ".join(found) or "none of its kind"}): {INSTALL} (on Python 3.11 or older), or '
            f'{_INSTEAD}'
        )


@functools.cache
def load_ops() -> ModuleType:
    """The functions of spconv, checked and imported on first use.

    Raises:
        ImportError: see :func:`check_wheels`.
    """
    check_wheels(installed_wheels())
    with warnings.catch_warnings():
        # It calls decorators of torch by the names they had before torch 2.4.
        warnings.simplefilter('ignore', FutureWarning)
        from spconv.pytorch import ops
    return ops


class SpconvMap(TileMap):
    """Rows of visible positions, which spconv calls features, convolved by spconv.

    The pairs of rows that a kernel joins are made here and not by spconv, whose strided
    convolution would also compute positions of hidden cells next to visible ones: up to twice
    as many outputs. Only its algorithm ``Native`` takes pairs. A 1 x 1 convolution is that of
    ``tiles``.
    """

    engine = 'spconv'

    def conv2d(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> SpconvMap:
        """Convolution without groups, in a type of ``PRECISIONS``."""
        if groups != 1:
            raise refuse('conv2d', f'spconv has no groups, this layer has {groups}: {_INSTEAD}')
        dtype = self._precision()
        if geometry.window.is_pointwise():
            return super().conv2d(weight, bias, geometry, groups)
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
        out = _Conv.apply(rows, weight, tap_pairs(self.mask, geometry))
        out = out if bias is None else out.add_(bias)
        return self._at(out, geometry.out_tile)

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
                f'spconv does not compute in {dtype} on {kind}, only in {names}: {_INSTEAD}',
            )
        return dtype


class Pairs(NamedTuple):
    """Which row of the input each tap adds to which row of the output, in spconv's layout.

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


@cached_table
def tap_pairs(mask: CellMask, geometry: Geometry) -> Pairs:
    """The pairs of visible positions; outputs in hidden cells are not computed."""
    index = tap_rows(mask, geometry).t()
    taps, outputs = index.shape
    visible = index < mask.num_visible * geometry.tile[0] * geometry.tile[1]
    counts = visible.sum(1)
    tap, output = visible.nonzero(as_tuple=True)
    place = torch.arange(len(tap), device=tap.device)
    place -= (counts.cumsum(0) - counts)[tap]
    longest = max(1, int(counts.max()))  # spconv takes no empty tensor
    rows = torch.full((2, taps, longest), -1, dtype=torch.int32, device=tap.device)
    rows[0, tap, place] = index[tap, output].int()
    rows[1, tap, place] = output.int()
    in_place = taps % 2 == 1 and geometry.window.own_tap == taps // 2
    return Pairs(rows, counts.int().cpu(), outputs, in_place)


class _Conv(torch.autograd.Function):
    """spconv's products and their gradients.

    Its own autograd function is not used: under CUDA's autocast it casts to float16 whatever
    autocast's type is, and on an error it prints and may write files.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.pairs = pairs
        how = dict(subm=pairs.in_place, algo=load_ops().ConvAlgo.Native)
        weight = _by_position(weight)
        return load_ops().indice_conv(rows, weight, pairs.rows, pairs.counts, pairs.outputs, **how)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        how = dict(subm=pairs.in_place, algo=load_ops().ConvAlgo.Native)
        grad_rows, grad_weight = load_ops().indice_conv_backward(
            rows, _by_position(weight), grad, pairs.rows, pairs.counts, **how
        )
        return grad_rows, grad_weight.permute(0, 3, 1, 2), None


def _by_position(weight: Tensor) -> Tensor:
    """(Co, kh, kw, C), contiguous: the order in which spconv 2.3 holds weights (KRSC)."""
    return weight.permute(0, 2, 3, 1).contiguous()
