"""The sections of the report in order: packages, machine, what runs, each config.

Imports the standard library only, so that it can report a broken package.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

from hgkd_mm.utils import environment
from hgkd_mm.utils.environment import SETUP

TIMEOUT = 300.0
# What the probes print before the name of the next one, and before a section.
BEGIN, SECTION = '@begin ', '@section '
# Pinned for compiling mmcv, for tests and for style: training does without them.
NOT_NEEDED_TO_RUN = frozenset(
    {'hypothesis', 'ninja', 'psutil', 'pytest', 'ruff', 'setuptools', 'wheel'}
)


@dataclass(kw_only=True)
class Section:
    """One heading of the report.

    Attributes:
        title: What was looked at.
        facts: Values by name, in the order in which they are printed.
        problems: Sentences on what will not work, each with its cure.
        notes: Sentences on what works with limits.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The section as plain lines, for a terminal and for a log."""
        width = max(map(len, self.facts), default=0)
        lines = [self.title]
        lines += [f'  {name:<{width}}  {value}' for name, value in self.facts.items()]
        lines += [f'  PROBLEM: {problem}' for problem in self.problems]
        lines += [f'  Note: {note}' for note in self.notes]
        return '\n'.join(lines)


def examine(
    *,
    root: Path,
    configs: Sequence[str] = (),
    options: Sequence[str] = (),
    build: bool = False,
) -> Iterator[Section]:
    """Yields each section as soon as it is known. Nothing is downloaded or written.

    Args:
        root: The repository.
        configs: Config files.
        options: Overrides of theirs, 'key=value' as ``--cfg-options`` takes them.
        build: Also build each config's model, optimizer and data sets, and read weights.
    """
    installed = environment.installed_versions()
    for section in _sections(root, installed, configs, options, build):
        for sentences in (section.problems, section.notes):
            requirements = environment.stack_of(installed)
            sentences[:] = [environment.for_stack(text, requirements) for text in sentences]
        yield section


def packages(root: Path, installed: Mapping[str, str]) -> Section:
    """Compares installed versions with the tested ones in the requirements files of ``root``.

    A missing package and packages that overwrite each other are problems. Another version is a
    note: whether it works is seen when it is run.
    """
    section = Section(title='Packages')
    requirements = environment.stack_of(installed)
    pins = environment.read_pins(root / requirements)
    pins = {name: pins[name] for name in pins if name not in NOT_NEEDED_TO_RUN}
    present = {name: v for name in pins if (v := environment.version_of(name, installed))}
    absent = {name: pins[name] for name in pins if name not in present}
    for name in pins:
        if name in ('numpy', 'torch', 'torchvision') or name.startswith(('mm', 'onedl-')):
            section.facts[name] = present.get(name, 'not installed')
    section.problems += environment.check_versions(absent, installed)
    section.notes += environment.check_versions({name: pins[name] for name in present}, present)
    tested = not section.problems and not section.notes
    section.facts['tested stack'] = f'{"yes:" if tested else "no; the nearest is"} {requirements}'
    return section


def probe_apart(root: Path, *, timeout: float = TIMEOUT) -> list[Section]:
    """Runs `probes` in another process, which an op compiled for another torch may end.

    Args:
        root: The repository.
        timeout: Seconds after which a probe counts as hanging.

    Returns:
        The machine and what runs on it, or which probe ended the process.
    """
    command = [sys.executable, '-W', 'ignore', '-m', 'hgkd_mm.doctor.probes']
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b'').decode(errors='replace')
        return read_probes(output, f'did not come back in {timeout:.0f} s')
    killed = done.returncode < 0
    last = done.stderr.strip().rpartition('\n')[2]
    ending = signal.Signals(-done.returncode).name if killed else f'{done.returncode}: {last}'
    return read_probes(done.stdout, f'ended the process ({ending})')


def read_probes(output: str, ending: str) -> list[Section]:
    """The sections that the probes printed, and a problem if they began one more.

    Args:
        output: What they printed.
        ending: How their process ended.
    """
    sections = []
    begun = 'Starting Python'
    for line in output.splitlines():
        if line.startswith(BEGIN):
            begun = line.removeprefix(BEGIN)
        elif line.startswith(SECTION):
            sections.append(Section(**json.loads(line.removeprefix(SECTION))))
            begun = ''
    if begun:
        problem = (
            f'{begun[0].upper()}{begun[1:]} {ending}; what comes after it was not tried. A package '
            f'compiled for another torch does this: `{SETUP}`, and if it is mmcv, `{SETUP} '
            '--rebuild-mmcv`.'
        )
        sections.append(Section(title='What runs', problems=[problem]))
    return sections


def _sections(
    root: Path,
    installed: Mapping[str, str],
    configs: Sequence[str],
    options: Sequence[str],
    build: bool,
) -> Iterator[Section]:
    yield packages(root, installed)
    yield from probe_apart(root)
    for path in configs:
        with _quiet():
            what = 'Importing mmengine, mmpretrain and hgkd_mm'
            problem = environment.attempt(what, partial(import_module, 'hgkd_mm.doctor.config'))
            if problem:
                section = Section(title=f'Config {path}', problems=[problem])
            else:
                from .config import look_at_config

                section = look_at_config(path, options, build=build)
        yield section


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps warnings, logs and prints of what is tried out of the report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
