"""Scenes, the embedded data set: textured objects in front of textured backgrounds."""

from .objects import CLASSES
from .renderer import SPLITS, Instance, Scene, SceneRenderer
from .writer import SceneFolder, contact_sheet

__all__ = [
    'CLASSES',
    'SPLITS',
    'Instance',
    'Scene',
    'SceneFolder',
    'SceneRenderer',
    'contact_sheet',
]
