"""The scripts in tools/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str) -> ModuleType:
    """Imports ``tools/NAME.py`` anew; the search path stays as it is."""
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module
