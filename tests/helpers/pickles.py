"""Pickles that ask for more than tensors, harmlessly."""

from __future__ import annotations

import os
from pathlib import Path


class MakesFolder:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.makedirs, (str(self.folder), 0o777, True)
