"""Convolution and pooling of a SparseFeatureMap, and padding in front of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import TensorLike, refuse
from .feature_map import SparseFeatureMap
from .window import Pair, Window, pair


class PaddedMap(TensorLike):
    """What ``F.pad`` makes of a map: the padding waits for the window that reads it.

    Networks that came from TensorFlow pad unevenly by hand in front of a convolution or a
    pooling without padding of its own.

    Args:
        inner: the map.
        before: positions added above and to the left.
        after: positions added below and to the right.
        value: what they hold.
    """

    def __init__(self, inner: SparseFeatureMap, before: Pair, after: Pair, value: float) -> None:
        self.inner = inner
        self.before = before
        self.after = after
        self.value = value

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W) with the padding."""
        batch, channels, height, width = self.inner.shape
        (top, left), (bottom, right) = self.before, self.after
        return torch.Size((batch, channels, height + top + bottom, width + left + right))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.inner.dtype

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.inner.channels

    def conv2d(
        self, weight: Tensor, bias: Tensor | None, window: Window, groups: int
    ) -> SparseFeatureMap:
        """Convolution of the padded map."""
        self._must_be_zero()
        return self.inner.conv2d(weight, bias, self._window(window), groups)

    def max_pool2d(self, window: Window) -> SparseFeatureMap:
        """Maximum over windows of the padded map."""
        if window.padding != (0, 0) and self.value != -math.inf:
            raise ValueError('the map was padded already; pad in one place only.')
        return self.inner.max_pool2d(self._window(window), self.value)

    def avg_pool2d(self, window: Window, count_include_pad: bool) -> SparseFeatureMap:
        """Mean over windows of the padded map, whose padding counts."""
        self._must_be_zero()
        if window.padding != (0, 0) and not count_include_pad:
            raise ValueError('the map was padded already; pad in one place only.')
        return self.inner.avg_pool2d(self._window(window), True)

    def _window(self, window: Window) -> Window:
        return window.padded(self.before, self.after)

    def _must_be_zero(self) -> None:
        if self.value != 0.0:
            raise ValueError(f'the map is padded with {self.value}, only 0.0 is known here.')


@SparseFeatureMap.answers(F.pad)
def _pad(
    input: SparseFeatureMap, pad: Sequence[int], mode: str = 'constant', value: float | None = None
) -> PaddedMap | SparseFeatureMap:
    if mode != 'constant' or len(pad) not in (2, 4) or min(pad) < 0:
        raise refuse(
            'pad', f"only mode='constant' and sizes from 0 are known, got {mode!r} and {pad}."
        )
    left, right, top, bottom = (*pad, 0, 0)[:4]
    if not any(pad):
        return input.share()
    return PaddedMap(input.share(), (top, left), (bottom, right), float(value or 0.0))


def _windowed(*functions: Callable) -> Callable[[Callable], Callable]:
    """Registers a handler for maps and for padded maps."""

    def register(handler: Callable) -> Callable:
        return PaddedMap.answers(*functions)(SparseFeatureMap.answers(*functions)(handler))

    return register


def _geometry(op: str, make: Callable[[], Any]) -> Any:
    """Runs ``make``, naming op and layer if the geometry does not fit the mask's cells."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(str(refuse(op, str(error)))) from error


@_windowed(torch.conv2d, F.conv2d)
def _conv2d(
    input: SparseFeatureMap | PaddedMap,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> SparseFeatureMap:
    def run() -> SparseFeatureMap:
        if weight.shape[1] * groups != input.channels:
            raise ValueError(
                f'the weight {tuple(weight.shape)} with {groups} groups wants '
                f'{weight.shape[1] * groups} channels, the map has {input.channels}.'
            )
        window = Window.of(tuple(weight.shape[-2:]), stride, padding, dilation)
        return input.conv2d(weight, bias, window, groups)

    return _geometry('conv2d', run)


@_windowed(torch.max_pool2d, F.max_pool2d)
def _max_pool2d(
    input: SparseFeatureMap | PaddedMap,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> SparseFeatureMap:
    window = Window.of(kernel_size, stride or kernel_size, padding, dilation, ceil_mode)
    if isinstance(input, PaddedMap):
        _refuse_overrun('max_pool2d', window, input)
    return _geometry('max_pool2d', lambda: input.max_pool2d(window))


def _refuse_overrun(op: str, window: Window, input: SparseFeatureMap | PaddedMap) -> None:
    """Stops a pooling whose ceil_mode lets windows run over the edge."""
    size = tuple(input.shape[-2:])
    floored = replace(window, ceil_mode=False)
    if window.ceil_mode and window.out_size(size) != floored.out_size(size):
        raise refuse(
            op,
            f'ceil_mode makes windows of {window.kernel} run over the edge of a map of {size}; '
            'use an image size that is a multiple of the stride.',
        )


@_windowed(F.avg_pool2d)
def _avg_pool2d(
    input: SparseFeatureMap | PaddedMap,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> SparseFeatureMap:
    window = Window.of(kernel_size, stride or kernel_size, padding, 1, ceil_mode)
    if divisor_override is not None:
        raise refuse('avg_pool2d', 'divisor_override is not supported on a SparseFeatureMap.')
    _refuse_overrun('avg_pool2d', window, input)
    return _geometry('avg_pool2d', lambda: input.avg_pool2d(window, count_include_pad))


@SparseFeatureMap.answers(F.interpolate)
def _interpolate(
    input: SparseFeatureMap,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = 'nearest',
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> SparseFeatureMap:
    height, width = input.shape[2:]
    if size is not None:
        wanted = pair(size)
    else:
        sy, sx = pair(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * 2
        wanted = height * sy, width * sx
    if mode != 'nearest' or wanted[0] % height or wanted[1] % width:
        raise refuse(
            'interpolate',
            f"only mode='nearest' to a whole multiple of {height} x {width} stays inside the "
            f'cells, got {mode!r} to {wanted[0]:g} x {wanted[1]:g}.',
        )
    return input.repeat((int(wanted[0] // height), int(wanted[1] // width)))
