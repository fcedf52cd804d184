"""Scenes, the embedded data set: textured objects in front of textured backgrounds."""

from .folder import SceneFolder
from .layouts import make_scenes, write_layouts
from .recipes import CLASSES

__all__ = ['CLASSES', 'SceneFolder', 'make_scenes', 'write_layouts']
