"""The OpenMMLab packages, where they are: installed, or as wheels in a folder."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from pathlib import Path

from .context import Context, LeftOutError


def unpack(wheels: Path, site: Path) -> None:
    """Unpacks pure wheels and lets this process and its children import them.

    Args:
        wheels: folder of wheels, as ``tools/gpu_wheels.sh`` fills it.
        site: folder to unpack into.

    Raises:
        FileNotFoundError: there is no wheel in the folder.
    """
    found = sorted(wheels.glob('*.whl'))
    if not found:
        raise FileNotFoundError(
            f'--wheels {wheels} holds no wheel; fill it with: bash tools/gpu_wheels.sh {wheels}'
        )
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.insert(0, str(site))
    paths = [str(site), *filter(None, [os.environ.get('PYTHONPATH')])]
    os.environ['PYTHONPATH'] = os.pathsep.join(paths)
    importlib.invalidate_caches()


def import_openmmlab() -> None:
    """Imports mmpretrain's networks and those of this package that stand on them.

    Raises:
        LeftOutError: a package is missing; the text names it.
    """
    try:
        importlib.import_module('mmpretrain.models')
        importlib.import_module('hgkd_mm.models')
    except ImportError as error:
        raise LeftOutError(
            f'mmengine, mmcv and mmpretrain are needed ({error}): install them, or give '
            '--wheels DIR, which tools/gpu_wheels.sh fills.'
        ) from error


def flagship(context: Context, name: str = 'flagship.py') -> Path:
    """The flagship's config in the sizes of this check, as a file of its own.

    Args:
        context: gives the sizes and the folder.
        name: of the file.
    """
    from mmengine.config import Config

    from hgkd_mm.utils.launch import override

    root = Path(__file__).resolve().parents[3]
    config = Config.fromfile(root / 'configs/pretrain/hgkd_r50_mae.py')
    override(config, context.sizes.options)
    path = context.scratch / name
    config.dump(path)
    return path
