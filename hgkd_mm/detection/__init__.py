"""What Mask R-CNN needs beside mmdet; importing this registers it there."""

from .full_precision import FloatRoIExtractor, FloatRPNHead
from .simple_fpn import SimpleFPN

__all__ = ['FloatRPNHead', 'FloatRoIExtractor', 'SimpleFPN']
