"""Necks: from sparse feature maps to dense ones."""

from .unet_decoder import UNetDecoder

__all__ = ['UNetDecoder']
