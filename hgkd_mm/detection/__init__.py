"""What Mask R-CNN needs beside mmdet; importing this registers it there."""

from .full_precision import FloatRoIExtractor, FloatRPNHead

__all__ = ['FloatRPNHead', 'FloatRoIExtractor']
