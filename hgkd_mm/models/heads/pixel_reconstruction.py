"""SparK's loss: the pixels of the hidden cells."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import StudentOutput
from .base import DistillHead, Partners, at_least_float32


@MODELS.register_module()
class PixelReconstructionHead(DistillHead):
    r"""Mean squared error of the hidden cells, each standardized; no teacher.

    .. math::
        L_\mathrm{pixel} = \frac{1}{|H|} \sum_{c \in H} \frac{1}{3 p^2}
            \Bigl\lVert \hat{x}_c - \frac{x_c - \mu_c}{\sqrt{\sigma_c^2 + 10^{-6}}} \Bigr\rVert^2

    over the hidden cells :math:`H` of the batch, with :math:`\mu_c` and the unbiased
    :math:`\sigma_c^2` over the :math:`3 p^2` values of cell :math:`c`. If nothing is hidden
    the loss is zero.

    The equation is SparK's, seen in code (docs/sources.md 3.3); H-GKD has no such term (stated):
    this is the baseline to compare it with. With ``out_stride`` s > 1 a 1x1 convolution
    predicts the s x s pixels of a position (inferred: it saves the last up-blocks, most of
    whose cost is at full resolution); s = 1 is SparK's own.

    Args:
        in_channels: channels of the decoded map; derived in a model.
        out_stride: stride of the decoded map; derived in a model.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_stride: int = 1,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        self.out_stride = out_stride
        self.project = nn.Conv2d(in_channels, 3 * out_stride**2, 1)

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        neck = partners.decoder
        return {'in_channels': neck.out_channels, 'out_stride': neck.out_stride}

    def reconstruct(self, decoded: Tensor) -> Tensor:
        """The predicted, per-cell standardized image (B, 3, H, W) of a decoded map."""
        return F.pixel_shuffle(self.project(decoded), self.out_stride)

    def fill_in(self, student: StudentOutput) -> Tensor:
        """The images (B, 3, H, W) with their hidden cells from the prediction.

        A predicted cell is standardized; here it gets the mean and the deviation of the true
        cell, as in MAE's demo. They are not predicted, since the structure is to be judged.
        """
        images = at_least_float32(student.images)
        predicted = at_least_float32(self.reconstruct(student.decoded))
        mean, std = _cell_statistics(split_cells(images, student.mask.grid))
        predicted = split_cells(predicted, student.mask.grid) * std + mean
        visible = student.mask.at(images.shape[2:]).unsqueeze(1)
        return torch.where(visible, images, predicted.flatten(4, 5).flatten(2, 3))

    def forward(self, student: StudentOutput, teacher: None = None) -> Tensor:
        grid = student.mask.grid
        target = split_cells(at_least_float32(student.images), grid)
        mean, std = _cell_statistics(target)
        target = (target - mean) / std
        predicted = split_cells(at_least_float32(self.reconstruct(student.decoded)), grid)
        error = (predicted - target).square().mean(dim=(1, 3, 5))
        hidden = ~student.mask.visible
        return torch.where(hidden, error, 0.0).sum() / hidden.sum().clamp(min=1)


def split_cells(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """A view (B, C, gh, H / gh, gw, W / gw) of images (B, C, H, W)."""
    return images.unflatten(3, (grid[1], -1)).unflatten(2, (grid[0], -1))


def _cell_statistics(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each cell, (B, 1, gh, 1, gw, 1) both."""
    var, mean = torch.var_mean(cells, dim=(1, 3, 5), keepdim=True)
    return mean, (var + 1e-6).sqrt()
