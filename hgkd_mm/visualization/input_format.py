"""Between pictures for people, RGB in bytes, and the images that a network was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .images import denormalize

_CONVERSIONS = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """How a network's images are normalised.

    Attributes:
        mean: per channel, 0 to 255, in the network's order of channels.
        std: the same.
        rgb: whether that order is RGB; BGR otherwise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> InputFormat:
        """That of a config of mmpretrain, mmdet or mmseg, whose loaders give BGR.

        Args:
            config: the whole config; its data_preprocessor, that of the model first, counts.

        Raises:
            ValueError: mean or std is not of three channels.
        """
        found = config['model'].get('data_preprocessor') or config.get('data_preprocessor') or {}
        mean = tuple(map(float, found.get('mean') or (0, 0, 0)))
        std = tuple(map(float, found.get('std') or (1, 1, 1)))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(
                f'Pictures are made of networks that take three channels, but data_preprocessor '
                f'has mean={mean} and std={std}.'
            )
        return cls(mean=mean, std=std, rgb=any(found.get(key) for key in _CONVERSIONS))

    def normalize(self, pictures: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) RGB to (B, 3, H, W) float32, as the network wants them."""
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((pixels if self.rgb else pixels.flip(1)) - mean) / std

    def restore(self, images: Tensor) -> NDArray[np.uint8]:
        """(B, 3, H, W) of the network to (B, H, W, 3) RGB."""
        pictures = denormalize(images, self.mean, self.std)
        return pictures if self.rgb else np.ascontiguousarray(pictures[..., ::-1])
