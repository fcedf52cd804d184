"""Matrix products of rows: what 1 x 1 convolutions and gathered taps come down to.

On CPU they run as 1 x 1 convolutions of a channels-last image that has the rows as its
positions, because oneDNN's convolutions are faster there than the matrix product that torch
would call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_mask import Pair

Wanted = tuple[bool, bool, bool]
INPUT: Wanted = (True, False, False)
WEIGHT: Wanted = (False, True, False)
BOTH: Wanted = (True, True, False)


def rows_of(image: Tensor) -> Tensor:
    """(B * H * W, C) rows of a (B, C, H, W) result, without a copy when it is channels-last.

    The rows are no view to autograd, so that later ops may change them in place. Only for the
    output of an op that does not save it for its gradient (convolution, norm, pooling).
    """
    last = image.permute(0, 2, 3, 1).contiguous()
    return torch.ops.aten._unsafe_view(last, (-1, image.shape[1]))


def as_image(rows: Tensor, batch: int = 1) -> Tensor:
    """(batch, C, R / batch, 1) channels-last view of (R, C) rows."""
    return rows.view(batch, rows.shape[0] // batch, 1, rows.shape[1]).permute(0, 3, 1, 2)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, Co): ``rows @ weight.t() + bias`` of (R, C) and (Co, C)."""
    batch = _batch(rows, weight.shape)
    if batch:
        return rows_of(F.conv2d(as_image(rows, batch), weight[:, :, None, None], bias))
    return F.linear(rows, weight, bias)


def multiply(rows: Tensor, matrix: Tensor) -> Tensor:
    """(R, Co): ``rows @ matrix`` of (R, C) and (C, Co)."""
    return linear(rows, matrix.t(), None)


def multiply_transposed(grad: Tensor, rows: Tensor) -> Tensor:
    """(Co, C): ``grad.t() @ rows`` of (R, Co) and (R, C), the gradient of a weight."""
    channels = grad.shape[1], rows.shape[1]
    batch = _batch(rows, channels)
    if not batch:
        return grad.t() @ rows
    images = as_image(grad, batch), as_image(rows, batch)
    return conv_gradients(*images, rows.new_empty(*channels, 1, 1), WEIGHT)[1].view(channels)


def conv_gradients(
    grad: Tensor,
    image: Tensor,
    weight: Tensor,
    wanted: Wanted,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Tensor | None, Tensor | None]:
    """Torch's own gradients of a convolution, of its input and its weight, None if not wanted.

    Of a tensor whose gradient alone is wanted, only the shape is read.
    """
    return torch.ops.aten.convolution_backward(
        grad, image, weight, None, stride, padding, dilation, False, (0, 0), groups, wanted
    )[:2]


def _batch(rows: Tensor, channels: tuple[int, ...]) -> int:
    """Into how many images the rows shall be laid out, or 0 for a plain product.

    With fewer than 16 torch would leave oneDNN for its slow convolution on a single thread.
    Where the weight is larger than the map, laying it out anew for oneDNN costs what is won.
    """
    fits = rows.device.type == 'cpu' and rows.dtype in (torch.float32, torch.bfloat16)
    if not fits or rows.shape[0] < max(channels) or not torch.backends.mkldnn.is_available():
        return 0
    return next((batch for batch in (32, 16) if rows.shape[0] % batch == 0), 0)
