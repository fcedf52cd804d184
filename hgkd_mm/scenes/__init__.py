"""Scenes, the embedded data set: textured objects in front of textured backgrounds."""

from .extras import GAP, ExtraRenderer, ExtraScene
from .layouts import SceneLayouts
from .objects import CLASSES
from .renderer import SPLITS, Instance, Scene, SceneRenderer
from .writer import SceneFolder, contact_sheet

__all__ = [
    'CLASSES',
    'GAP',
    'SPLITS',
    'ExtraRenderer',
    'ExtraScene',
    'Instance',
    'Scene',
    'SceneFolder',
    'SceneLayouts',
    'SceneRenderer',
    'contact_sheet',
]
