"""Data sets and transforms of pre-training; importing this registers them with mmpretrain."""

from .labelled_folder import LabelledFolder, LabelledImageNet
from .loading import LoadColorImage, UnreadableImageError
from .unlabelled_folder import BrokenImages, UnlabelledFolder

__all__ = [
    'BrokenImages',
    'LabelledFolder',
    'LabelledImageNet',
    'LoadColorImage',
    'UnlabelledFolder',
    'UnreadableImageError',
]
