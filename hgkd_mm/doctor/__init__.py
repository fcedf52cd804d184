"""What is wrong with a machine, its packages or a config, and how to repair it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .machine import look_at_machine, look_at_packages, what_runs
from .section import Section

__all__ = ['Section', 'examine']


def examine(
    root: Path, configs: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Section]:
    """Yields each section as soon as it is known. Nothing is downloaded or written.

    Args:
        root: The repository.
        configs: Config files.
        options: Overrides of theirs, 'key=value' each.
    """
    yield look_at_packages(root)
    yield look_at_machine(Path('work_dirs'))
    yield what_runs()
    for path in configs:
        section = Section(title=f'Config {path}')
        with section.attempt('Importing mmengine, mmpretrain and hgkd_mm'):
            from .config import look_at_config

            look_at_config(section, path, options)
        yield section
