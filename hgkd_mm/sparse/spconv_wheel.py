"""Which package called spconv is installed, and whether its results can be trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

INSTALL = 'pip install spconv-cu120==2.3.6 cumm-cu120==0.4.11'
_INSTEAD = "use engine='tiles' (config key model.engine)"


def installed_wheels() -> list[str]:
    """Names of the installed distributions of spconv and of cumm, which it is built on."""
    # The name of a distribution whose metadata is broken is None.
    names = {re.sub('[-_.]+', '-', d.name or '').lower() for d in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r'(spconv|cumm)(-.+)?', name))


def check_wheels(names: Iterable[str]) -> None:
    """Refuses to compute without a wheel of spconv that is right on any number of threads.

    The wheel made for CPUs is called ``spconv``; those made for CUDA, ``spconv-cu120`` say,
    work on CPU tensors too. All of them fill one folder, so that beside the first no other
    can be trusted either.

    Args:
        names: installed distributions, as :func:`installed_wheels` gives them.

    Raises:
        ImportError: the CPU-only wheel is among them, or no wheel is.
    """
    found = list(names)
    if 'spconv' in found:
        raise ImportError(
            "engine='spconv' does not work with the package 'spconv': this CPU-only wheel gives "
            'wrong results, without a word, as soon as torch has more than one thread. Replace '
            f'it (pip uninstall -y {" ".join(found)}; {INSTALL}), or {_INSTEAD}.'
        )
    if not any(re.fullmatch(r'spconv-cu\d+', name) for name in found):
        raise ImportError(
            "engine='spconv' needs the package spconv-cu120, which is not installed (found: "
            f'{", ".join(found) or "none of its kind"}): {INSTALL} (on Python 3.11 or older), or '
            f'{_INSTEAD}.'
        )
