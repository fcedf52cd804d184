"""Data sets and transforms of pre-training; importing this registers them with mmpretrain."""

from .broken_images import BrokenImages
from .labelled_folder import LabelledFolder, LabelledImageNet
from .loading import LoadColorImage, UnreadableImageError
from .unlabelled_folder import UnlabelledFolder

__all__ = [
    'BrokenImages',
    'LabelledFolder',
    'LabelledImageNet',
    'LoadColorImage',
    'UnlabelledFolder',
    'UnreadableImageError',
]
