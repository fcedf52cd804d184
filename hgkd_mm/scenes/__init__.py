"""Scenes, the embedded data set: textured objects in front of textured backgrounds."""

from .folder import SceneFolder, contact_sheet
from .layouts import SceneLayouts, make_scenes
from .recipes import CLASSES
from .renderer import GAP, SPLITS, ExtraRenderer, ExtraScene, Instance, Scene, SceneRenderer

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
    'make_scenes',
]
