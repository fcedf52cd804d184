"""mmpretrain's networks from configs that may come from anywhere, so that none is run."""

from __future__ import annotations

import ast
import contextlib
import copy
import re
from collections.abc import Mapping
from typing import Any

import mmpretrain.models  # noqa: F401  registers the networks
from mmpretrain.registry import MODELS
from torch import nn

# A config may name any function of any package, and MMEngine would import and call it.
_HOMES = (
    'torch.nn.',
    'mmcv.cnn.',
    'mmcv.ops.',
    'mmengine.model.',
    'mmpretrain.models.backbones.',
    'mmpretrain.models.utils.',
)


def parse_config_text(text: str) -> dict[str, Any]:
    """The literal values of a config as MMEngine dumps it (``Config.pretty_text``).

    MMEngine runs such a text to read it, and a checkpoint may come from anywhere. Here nothing is
    called, and a value that holds more than literals and calls of ``dict`` is left out.

    Raises:
        ValueError: the text is no Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f'The config in the checkpoint is no Python ({error}): give the config file of the '
            'run with --config.'
        ) from error
    values = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                with contextlib.suppress(ValueError, TypeError, RecursionError):
                    values[name] = ast.literal_eval(_DictCalls().visit(value))
    return values


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a b': 1})`` into the literals that they stand for."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802  the name is ast's
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
                # ** has no name and becomes a key of None, which literal_eval refuses
                keys = [keyword.arg and ast.Constant(keyword.arg) for keyword in keywords]
                return ast.Dict(keys=keys, values=[keyword.value for keyword in keywords])
            case ast.Call(func=ast.Name(id='dict'), args=[ast.Dict() as inner], keywords=[]):
                return inner
        return node


def describe_backbone(config: Mapping[str, Any], *, trusted: bool) -> dict[str, Any]:
    """The config of a backbone in one form, from which nothing but a network is built.

    It loses the scope 'mmpretrain.' and what acts before training only, and has plain batch norms
    instead of synchronized ones (same weights).

    Args:
        config: ``model.backbone`` of a run.
        trusted: whether it may name classes of other packages.

    Raises:
        ValueError: it names no network of mmpretrain, or a layer that is not one.
    """
    kept = {key: value for key, value in config.items() if key not in ('init_cfg', 'pretrained')}
    return _plain(kept, trusted)


def build_backbone(config: Mapping[str, Any]) -> nn.Module:
    """The network of a described config, with initial weights, in eval mode.

    Raises:
        ValueError: mmpretrain does not take these settings.
    """
    try:
        # a copy, since ConvNeXt writes into its out_indices
        settings = copy.deepcopy(dict(config))
        network = MODELS.build({**settings, 'init_cfg': None, '_scope_': 'mmpretrain'})
    except (TypeError, KeyError, AssertionError, ValueError) as error:
        raise ValueError(
            f'mmpretrain cannot make the backbone {dict(config)}: {error}. Give the config file '
            'of the run with --config.'
        ) from error
    network.train(False)
    return network


def short_name(kind: object) -> str:
    """'HGKD' for a class, its whole name or its name with a scope."""
    name = kind.__qualname__ if isinstance(kind, type) else str(kind)
    return name.rsplit('.', 1)[-1]


def _plain(node: Any, trusted: bool) -> Any:
    if isinstance(node, Mapping):
        plain = {key: _plain(value, trusted) for key, value in node.items()}
        for key in plain.keys() & {'type', '_scope_'}:
            plain[key] = _plain_name(plain[key])
            if not trusted:
                _check_known(plain[key])
        return plain
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(value, trusted) for value in node)
    return node


def _plain_name(name: Any) -> Any:
    # configs of MMEngine's newer style have classes, and 'mmpretrain.models...ResNet' as text
    if isinstance(name, type):
        name = f'{name.__module__}.{name.__qualname__}'
    if isinstance(name, str) and name.startswith('mmpretrain.'):
        name = short_name(name)
    return 'BN' if name in ('SyncBN', 'MMSyncBN') else name


def _check_known(name: object) -> None:
    found = None
    registry = MODELS
    # Registry.get would import what is not registered.
    while isinstance(name, str) and re.fullmatch(r'\w+', name) and found is None and registry:
        found = registry.module_dict.get(name)
        registry = registry.parent
    home = f'{getattr(found, "__module__", "")}.'
    if not (isinstance(found, type) and issubclass(found, nn.Module) and home.startswith(_HOMES)):
        raise ValueError(
            f'The config in the checkpoint names {name!r}, which is neither a backbone nor a layer '
            'of mmpretrain. If it is your own, give the config file of the run with --config.'
        )
