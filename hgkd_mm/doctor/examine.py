"""All that the doctor looks at, in order."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgkd_mm.utils import env_check
from hgkd_mm.utils.mmcv_ops import MissingOpsError

from .apart import probes_apart
from .machine import machine
from .section import Section
from .stack import stack

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn


def examine(
    *,
    root: Path,
    configs: Sequence[str] = (),
    options: Sequence[str] = (),
    build: bool = False,
) -> Iterator[Section]:
    """Looks at the machine, the packages, what runs, and what each config needs.

    Nothing is downloaded, and nothing written.

    Args:
        root: The repository.
        configs: Config files.
        options: Overrides of theirs, 'key=value' as ``--cfg-options`` takes them.
        build: Also build each config's model and optimizer, on the CPU.

    Yields:
        A section as soon as it is known.
    """
    installed = env_check.installed_versions()
    cure = env_check.SETUP
    if env_check.stack_of(installed) != env_check.STACKS[0]:
        cure += ' --stack openmmlab'

    def right_cure(section: Section) -> Section:
        # what speaks of missing ops names the stack itself
        setup = re.compile(f'{re.escape(env_check.SETUP)}(?! --stack)')
        section.problems = [setup.sub(cure, text) for text in section.problems]
        section.notes = [setup.sub(cure, text) for text in section.notes]
        return section

    yield right_cure(machine(root / 'work_dirs'))
    yield right_cure(stack(root, installed))
    yield right_cure(probes_apart(root))
    for path in configs:
        with quiet():
            section = look_at_config(path, options, build=build)
        yield right_cure(section)


def look_at_config(path: str, options: Sequence[str] = (), *, build: bool = False) -> Section:
    """Looks for all that a config names.

    Args:
        path: The config file.
        options: Overrides, 'key=value' as ``--cfg-options`` takes them.
        build: Also build the model and the optimizer.
    """
    section = Section(title=f'Config {path}')
    problem = env_check.attempt('Importing mmengine, mmpretrain and hgkd_mm', _import_packages)
    if problem:
        section.problems.append(f'{problem} The config is not looked at before that.')
        return section
    from mmengine.registry import DefaultScope

    from hgkd_mm.utils.launch import load_config

    try:
        config = load_config(path, _parsed(options))
    except MissingOpsError as error:
        section.problems.append(str(error))
        return section
    except Exception as error:  # a config is a program, and may raise anything
        section.problems.append(_unreadable(path, error))
        return section
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmengine')):
        _look(section, config, path, build)
    return section


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings, logs and prints of what is tried out of the report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


def _look(section: Section, config: Config, path: str, build: bool) -> None:
    import torch

    from .building import look_at_build
    from .data import look_at_data
    from .settings import (
        look_at_batch,
        look_at_engine,
        look_at_nms,
        look_at_precision,
        look_at_types,
        look_at_work_dir,
    )
    from .weights import look_at_checkpoints, look_at_teachers

    built: list[nn.Module | None] = [None]
    looks: list[tuple[str, Callable[[], None]]] = [
        ('Looking up its types', lambda: look_at_types(section, config)),
        ('Looking at its data', lambda: look_at_data(section, config)),
        ('Looking at its teachers', lambda: look_at_teachers(section, config)),
        (
            'Building its model',
            lambda: built.append(look_at_build(section, config) if build else None),
        ),
        (
            'Looking at its checkpoints',
            lambda: look_at_checkpoints(section, config, built[-1]),
        ),
        ('Looking at its engine', lambda: look_at_engine(section, config)),
        ('Looking at its precision', lambda: look_at_precision(section, config)),
        ("Looking at mmcv's ops", lambda: look_at_nms(section, config)),
        (
            'Looking at its batch size',
            lambda: look_at_batch(section, config, gpus=torch.cuda.device_count()),
        ),
        ('Looking at its work dir', lambda: look_at_work_dir(section, config, path)),
    ]
    for what, look in looks:
        try:
            look()
        except ImportError as error:
            section.problems.append(env_check.explain(what, error))
        except Exception as error:  # whatever the code that a config names may raise
            text = str(error).split('\n')[0]
            section.problems.append(
                f'{what} failed ({type(error).__name__}: {text}): correct the config there.'
            )


def _parsed(options: Sequence[str]) -> dict[str, Any]:
    from hgkd_mm.utils.launch import add_config_flag

    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    return parser.parse_args(['--cfg-options', *options] if options else []).cfg_options


def _unreadable(path: str, error: BaseException) -> str:
    if isinstance(error, ImportError):
        # mmengine puts its own list of paths around the reason
        while error.__cause__ or error.__context__:
            error = error.__cause__ or error.__context__
        return (
            f'The config {path} needs a module that cannot be imported ({error}): install it, or '
            'correct custom_imports; hgkd_mm itself is found from the repository root, or after '
            '`pip install -e . --no-deps`.'
        )
    text = str(error).split('\n')[0]
    return f'The config {path} cannot be read ({type(error).__name__}: {text}): correct it.'


def _import_packages() -> None:
    import hgkd_mm.datasets
    import hgkd_mm.engine
    import hgkd_mm.models  # noqa: F401

    from . import building, data, settings, weights  # noqa: F401
