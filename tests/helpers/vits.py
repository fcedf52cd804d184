"""Small vision transformers to analyze."""

from __future__ import annotations

import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor, nn

from helpers.teachers import SIZES, randomised


def small_vit(**kwargs: object) -> nn.Module:
    """mmpretrain's, of 64 px, 16 patches, 3 blocks of 2 heads, with weights drawn at random."""
    return randomised(VisionTransformer(**SIZES, **kwargs))


def noise(batch: int, height: int = 64, width: int = 64) -> Tensor:
    """(batch, 3, H, W) of unit variance."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(5))
