"""Scenes, the embedded data set: textured objects in front of textured backgrounds."""

from .folder import SceneFolder, make_scenes
from .recipes import CLASSES

__all__ = ['CLASSES', 'SceneFolder', 'make_scenes']
