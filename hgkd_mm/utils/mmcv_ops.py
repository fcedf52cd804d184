"""Whether mmcv has its compiled ops, and who has to do without.

Imports the standard library only. Pre-training, classification and segmentation use none of the
ops; all of MMDetection does, already when it is imported.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec

from .env_check import SETUP, STACKS, installed_versions, stack_of


class MissingOpsError(RuntimeError):
    """mmcv is pure Python here, and what was asked for needs its compiled ops."""


def has_ops() -> bool:
    """Whether the installed mmcv comes with its compiled module, be it for this torch or another.

    The version does not tell: onedl-mmcv has one name and one version with ops and without.
    """
    package = find_spec('mmcv')
    # find_spec('mmcv._ext') would import mmcv, which takes seconds and may be what is broken.
    return package is not None and bool(
        PathFinder.find_spec('mmcv._ext', package.submodule_search_locations)
    )


def ops_command() -> str:
    """The command that compiles the ops, for the stack that is installed."""
    stack = '' if stack_of(installed_versions()) == STACKS[0] else ' --stack openmmlab'
    return f'{SETUP}{stack} --ops'


def missing_ops(what: str) -> str:
    """The sentence for who needs ops that are not there.

    Args:
        what: Needs them; the subject of the sentence.
    """
    return (
        f"{what} needs mmcv's compiled ops, and mmcv is installed without: `{ops_command()}` "
        'compiles them (8 to 12 minutes on 2 cores).'
    )


def need_ops(what: str) -> None:
    """Makes sure that mmcv has its ops, before any work is done.

    Args:
        what: Needs them; the subject of the sentence.

    Raises:
        MissingOpsError: It has none; the sentence names the command that compiles them.
    """
    if not has_ops():
        raise MissingOpsError(missing_ops(what))
