"""Convolution and pooling of a SparseFeatureMap, padding in front of them, and upsampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import TensorLike, refuse
from .feature_map import SparseFeatureMap
from .window import Geometry, Pair, Window, pair


class PaddedMap(TensorLike):
    """What ``F.pad`` makes of a map: the padding becomes part of the window that reads it.

    Networks ported from TensorFlow pad unevenly by hand in front of a convolution or pooling.

    Args:
        inner: the map.
        before, after: positions added above and to the left, below and to the right.
        value: what they hold.
    """

    def __init__(self, inner: SparseFeatureMap, before: Pair, after: Pair, value: float) -> None:
        self.inner = self.held = inner
        self.before = before
        self.after = after
        self.value = value

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W) with the padding."""
        batch, channels, height, width = self.inner.shape
        (top, left), (bottom, right) = self.before, self.after
        return torch.Size((batch, channels, height + top + bottom, width + left + right))


Map = SparseFeatureMap | PaddedMap


@SparseFeatureMap.answers(F.pad)
def _pad(
    input: SparseFeatureMap, pad: Sequence[int], mode: str = 'constant', value: float | None = None
) -> Map:
    if mode != 'constant' or len(pad) not in (2, 4) or min(pad) < 0:
        raise refuse('pad', f"only mode='constant' and sizes from 0 up, got {mode!r} and {pad}.")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    if not any(pad):
        return input.share()
    return PaddedMap(input.share(), (top, left), (bottom, right), float(value or 0.0))


def _windowed(*functions: Callable) -> Callable[[Callable], Callable]:
    """Registers a handler for maps and for padded maps."""

    def register(handler: Callable) -> Callable:
        return PaddedMap.answers(*functions)(SparseFeatureMap.answers(*functions)(handler))

    return register


def _geometry_error(op: str, why: str) -> ValueError:
    return ValueError(str(refuse(op, why)))


def _padding_value(op: str, input: Map, window: Window, own: float) -> float:
    """What lies outside the image for an op that pads with ``own``; one value only is possible."""
    value = input.value if isinstance(input, PaddedMap) else own
    if value != own and (own == 0.0 or window.padding != (0, 0)):
        raise _geometry_error(op, f'the map is padded with {value} already, this op needs {own}.')
    return value


def _place(op: str, input: Map, window: Window) -> tuple[SparseFeatureMap, Geometry]:
    """The map without padding by hand, and the geometry of the window, which takes it over."""
    if isinstance(input, PaddedMap):
        input, window = input.inner, window.padded(input.before, input.after)
    try:
        return input, Geometry.of(window, input.tile, input.mask.grid)
    except ValueError as error:
        raise _geometry_error(op, str(error)) from error


@_windowed(torch.conv2d, F.conv2d)
def _conv2d(
    input: Map,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> SparseFeatureMap:
    channels, needed = input.shape[1], weight.shape[1] * groups
    if needed != channels:
        what = f'the weight {tuple(weight.shape)} with {groups} groups needs {needed} channels'
        raise _geometry_error('conv2d', f'{what}, the map has {channels}.')
    window = Window.of(tuple(weight.shape[-2:]), stride, padding, dilation)
    _padding_value('conv2d', input, window, 0.0)
    inner, geometry = _place('conv2d', input, window)
    return inner.conv2d(weight, bias, geometry, groups)


@_windowed(torch.max_pool2d, F.max_pool2d)
def _max_pool2d(
    input: Map,
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
    outside = _padding_value('max_pool2d', input, window, -math.inf)
    inner, geometry = _place('max_pool2d', input, window)
    return inner.max_pool2d(geometry, outside)


@_windowed(F.avg_pool2d)
def _avg_pool2d(
    input: Map,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: None = None,
) -> SparseFeatureMap:
    window = Window.of(kernel_size, stride or kernel_size, padding, 1, ceil_mode)
    if divisor_override is not None:
        raise refuse('avg_pool2d', 'divisor_override is not supported on a SparseFeatureMap.')
    _refuse_overrun('avg_pool2d', window, input)
    _padding_value('avg_pool2d', input, window, 0.0)
    if isinstance(input, PaddedMap):
        if window.padding != (0, 0) and not count_include_pad:
            raise _geometry_error('avg_pool2d', 'the map is padded already; pad in one place only.')
        count_include_pad = True
    inner, geometry = _place('avg_pool2d', input, window)
    return inner.avg_pool2d(geometry, count_include_pad)


def _refuse_overrun(op: str, window: Window, input: Map) -> None:
    """Stops a pooling whose ceil_mode lets windows run over the edge."""
    size = tuple(input.shape[-2:])
    if window.out_size(size) != window._replace(ceil_mode=False).out_size(size):
        raise refuse(
            op,
            f'ceil_mode makes windows of {window.kernel} run over the edge of a map of {size}; '
            'use an image size that is a multiple of the stride.',
        )


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
    scales = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,) * 2
    wanted = pair(size) if size is not None else (height * scales[0], width * scales[-1])
    if mode != 'nearest' or wanted[0] % height or wanted[1] % width:
        raise refuse(
            'interpolate',
            f"only mode='nearest' to a whole multiple of {height} x {width} stays inside the "
            f'cells, got {mode!r} to {wanted[0]:g} x {wanted[1]:g}.',
        )
    return input.repeat((int(wanted[0] // height), int(wanted[1] // width)))
