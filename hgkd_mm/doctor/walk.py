"""Going through a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def nodes(value: Any, key: str) -> Iterator[tuple[str, dict]]:
    """All dicts in a part of a config, outer ones first.

    Args:
        value: Dicts and lists, nested at will.
        key: Where it stands in the config.

    Yields:
        The dotted key of each dict, as ``--cfg-options`` takes it, and the dict.
    """
    if isinstance(value, dict):
        yield key, value
        for name, child in value.items():
            yield from nodes(child, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from nodes(child, f'{key}.{index}')


def parts(config: dict, *endings: str) -> Iterator[tuple[str, Any]]:
    """The top-level keys that end like this, with their values, in the config's order."""
    for key, value in config.items():
        if value is not None and key.endswith(endings):
            yield key, value
