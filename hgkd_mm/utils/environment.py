"""The installed packages: their versions against the tested ones, and mmcv's compiled ops.

Imports the standard library only, so that a broken or missing package can be reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

STACKS = ('requirements.txt', 'requirements/openmmlab.txt')
# OpenMMLab's mmcv without compiled ops; OneDL's has one name with ops and without.
PURE_MMCV = 'mmcv-lite'
# Packages that own the same files. MMEngine installs OpenMMLab's over their forks when a config
# says `_base_ = 'mmseg::...'`.
_TWINS = (
    ('mmcv', 'onedl-mmcv'),
    ('mmengine', 'onedl-mmengine'),
    ('mmpretrain', 'onedl-mmpretrain'),
    ('mmdet', 'onedl-mmdetection'),
    ('mmsegmentation', 'onedl-mmsegmentation'),
    (PURE_MMCV, 'mmcv'),
    (PURE_MMCV, 'onedl-mmcv'),
    ('opencv-python', 'opencv-python-headless'),
)


class MissingOpsError(RuntimeError):
    """mmcv is pure Python here, and what was asked for needs its compiled ops."""


def read_pins(requirements: Path) -> dict[str, str]:
    """Versions by name of the ``name==version`` lines, those of included ``-r`` files too.

    Lines with an environment marker (``; sys_platform ...``) are left out: whether they apply is
    pip's decision.
    """
    pins: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            pins.update(read_pins(requirements.parent / line[3:].strip()))
        elif '==' in line and ';' not in line:
            name, version = line.split('==')
            pins[name.strip()] = version.strip()
    return pins


def installed_versions() -> dict[str, str]:
    """Versions of all installed distributions, by normalized name (lower case, dashes)."""
    return {
        re.sub(r'[-_.]+', '-', dist.name).lower(): dist.version for dist in metadata.distributions()
    }


def stack_of(installed: Mapping[str, str]) -> str:
    """The requirements file of the stack that the installed mmcv belongs to."""
    second = {'mmcv', PURE_MMCV} & set(installed)
    return STACKS[bool(second) and 'onedl-mmcv' not in installed]


def setup_command(*flags: str) -> str:
    """The command that sets up the installed stack."""
    stack = ['--stack openmmlab'] if stack_of(installed_versions()) == STACKS[1] else []
    return ' '.join(['bash tools/setup_env.sh', *stack, *flags])


def version_of(name: str, installed: Mapping[str, str]) -> str | None:
    """The installed version of a pinned package; mmcv-lite counts as mmcv."""
    stand_in = PURE_MMCV if name == 'mmcv' else name
    return installed.get(name.lower().replace('_', '-'), installed.get(stand_in))


def check_versions(
    pins: Mapping[str, str], installed: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Compares what is installed with the tested versions, and looks for packages that clash.

    Returns:
        A sentence for each package that is missing or damaged by another one, and a sentence for
        each other version than the tested one.
    """
    setup = setup_command()
    broken, untested = [], []
    for name, wanted in pins.items():
        found = version_of(name, installed)
        if found is None:
            broken.append(f'{name} {wanted} is not installed: `{setup}` installs it.')
        # A local label (2.11.0+cu130) names a build of the same release.
        elif found.split('+')[0] != wanted:
            untested.append(
                f'{name} {found} is installed, {wanted} was tested: `{setup}` installs it.'
            )
    for one, other in _TWINS:
        if one in installed and other in installed:
            broken.append(
                f'{one} {installed[one]} and {other} {installed[other]} are both installed and own '
                f'the same files: `{setup}` leaves one of them and repairs its files.'
            )
    return broken, untested


def has_ops() -> bool:
    """Whether the installed mmcv has its compiled module, be it for this torch or another."""
    package = find_spec('mmcv')
    # find_spec('mmcv._ext') would import mmcv, which takes seconds and may be what is broken.
    return package is not None and bool(
        PathFinder.find_spec('mmcv._ext', package.submodule_search_locations)
    )


def uses_ops(package: str) -> bool:
    """Whether a package cannot be imported without mmcv's ops."""
    # mmseg can in OneDL's continuation, not in OpenMMLab's last version.
    second = stack_of(installed_versions()) == STACKS[1]
    return package == 'mmdet' or (package == 'mmseg' and second)


def missing_ops(what: str) -> str:
    """The sentence for something that needs ops that are not there; ``what`` is its subject."""
    return (
        f"{what} needs mmcv's compiled ops, and mmcv is installed without: "
        f'`{setup_command("--ops")}` compiles them (8 to 12 minutes on 2 cores).'
    )


def need_ops(what: str) -> None:
    """Raises `MissingOpsError` where mmcv has no ops, before any work is done."""
    if not has_ops():
        raise MissingOpsError(missing_ops(what))
