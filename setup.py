"""Puts configs/ and the small teachers into the wheel; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies what lies beside the package in a checkout into it, where `experiments` looks."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for source in (*Path('configs').rglob('*.py'), *Path('assets').glob('*.safetensors')):
            target = Path(self.build_lib, 'hgkd_mm', source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


setup(cmdclass={'build_py': BuildWithConfigs})
