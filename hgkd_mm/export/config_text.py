"""Reading a config that lies in a checkpoint as text, without running it."""

from __future__ import annotations

import ast
from typing import Any


def parse_config_text(text: str) -> dict[str, Any]:
    """The values of a config as MMEngine dumps it (``Config.pretty_text``).

    MMEngine runs such a text to read it, and a checkpoint may come from anywhere. Here only
    literals, lists, tuples, dicts and calls of ``dict`` with keywords are understood; a value
    that holds anything else is left out, and nothing is called.

    Args:
        text: assignments, one a value.

    Returns:
        Name to value, for those that are literal.

    Raises:
        ValueError: the text is no Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'the config in it is no Python ({error})') from error
    values = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    values[target.id] = _value(statement.value)
                except (_NotLiteralError, RecursionError):
                    continue
    return values


class _NotLiteralError(Exception):
    pass


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Dict(keys=keys, values=values):
            return _pairs(keys, values)
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            return _keywords(keywords)
        # what MMEngine writes for a dict with keys that are no names
        case ast.Call(func=ast.Name(id='dict'), args=[ast.Dict() as inner], keywords=[]):
            return _value(inner)
    raise _NotLiteralError


def _pairs(keys: list[ast.expr | None], values: list[ast.expr]) -> dict:
    pairs = {}
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, ast.Constant):
            raise _NotLiteralError
        pairs[key.value] = _value(value)
    return pairs


def _keywords(keywords: list[ast.keyword]) -> dict[str, Any]:
    if any(keyword.arg is None for keyword in keywords):
        raise _NotLiteralError
    return {str(keyword.arg): _value(keyword.value) for keyword in keywords}
