"""The installed packages, and whether they are a stack that was tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hgkd_mm.utils import env_check

from .section import Section

# pinned for compiling mmcv, for tests and for style: training does without them
NOT_NEEDED_TO_RUN = frozenset(
    {'hypothesis', 'ninja', 'psutil', 'pytest', 'ruff', 'setuptools', 'wheel'}
)
_MAIN = ('numpy', 'torch', 'torchvision')


def stack(root: Path, installed: Mapping[str, str]) -> Section:
    """Compares what is installed with what was tested.

    A missing package and packages that overwrite each other are problems. Another version is a
    note: whether it works is seen when it is run.

    Args:
        root: The repository, where the requirements files are.
        installed: Versions by name, of `env_check.installed_versions`.
    """
    section = Section(title='Packages')
    requirements = env_check.stack_of(installed)
    pins = {
        name: version
        for name, version in env_check.read_pins(root / requirements).items()
        if name not in NOT_NEEDED_TO_RUN
    }
    main = [name for name in pins if name in _MAIN or name.removeprefix('onedl-').startswith('mm')]
    section.facts += [
        (name, env_check.version_of(name, installed) or 'not installed') for name in main
    ]

    present = {n: pin for n, pin in pins.items() if env_check.version_of(n, installed)}
    absent = {name: version for name, version in pins.items() if name not in present}
    others = _others(present, installed)
    section.problems += env_check.check_versions(absent, {})
    section.problems += env_check.check_versions({}, installed)
    tested = not section.problems and not others
    section.facts.append(
        ('tested stack', f'yes: {requirements}' if tested else f'no; the nearest is {requirements}')
    )
    if others:
        section.notes.append(
            f'{len(others)} of {len(pins)} packages have another version than the tested one '
            f'({", ".join(others)}): `{env_check.SETUP}` makes an environment with the tested ones.'
        )
    return section


def _others(pins: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    return [
        f'{name} {found}, not {version}'
        for name, version in pins.items()
        if (found := env_check.version_of(name, installed))
        and env_check.check_versions({name: version}, {name: found})
    ]
