"""Experiments on Scenes: the quickstart, the transfer table, ablations, and the small teachers."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel holds configs/ and assets/ within the package; in a checkout they lie beside it.
_INSTALLED = (_PACKAGE / 'configs').is_dir()
RESOURCES = _PACKAGE if _INSTALLED else _PACKAGE.parent
WORKSPACE = Path.cwd() if _INSTALLED else _PACKAGE.parent

CONFIGS = RESOURCES / 'configs'
ASSETS = RESOURCES / 'assets'
SCENES = WORKSPACE / 'data' / 'scenes'
WORK_DIRS = WORKSPACE / 'work_dirs'
