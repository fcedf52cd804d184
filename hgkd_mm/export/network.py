"""mmpretrain's networks from configs that may come from anywhere, so that none is run."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import re
from collections.abc import Mapping, Set
from typing import Any

import mmpretrain.models  # noqa: F401  registers the networks
from mmpretrain.registry import MODELS
from torch import nn

# They change neither the names of the weights nor the maps in eval mode.
_TRAINING_ONLY = frozenset(
    {
        'drop_path_rate',
        'frozen_stages',
        'init_cfg',
        'norm_eval',
        'out_indices',
        'type',
        'with_cp',
        'zero_init_residual',
    }
)
_SYNCHRONIZED = ('SyncBN', 'MMSyncBN')
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
        raise ValueError(f'the config in it is no Python ({error})') from error
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
    described = _plain(config)
    for name in ('init_cfg', 'pretrained'):
        described.pop(name, None)
    if not trusted:
        for name in _types(described):
            _check_known(name)
    return described


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


def unusual_settings(config: Mapping[str, Any], *, known: Set[str]) -> dict[str, Any]:
    """The settings that differ from mmpretrain's defaults, change the network, and are not known.

    Args:
        config: a described config.
        known: names of settings that the conversion looks at by itself.
    """
    defaults = _defaults(MODELS.get(config['type']))
    return {
        name: value
        for name, value in config.items()
        if name not in known | _TRAINING_ONLY
        and _comparable(value) != _comparable(defaults.get(name, inspect.Parameter.empty))
    }


def _defaults(network: type) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for cls in reversed(network.__mro__):
        if '__init__' in vars(cls):
            for name, parameter in inspect.signature(cls.__init__).parameters.items():
                defaults[name] = parameter.default
    return defaults


def _comparable(value: Any) -> Any:
    """Lists as tuples, and norms without what matters in training only."""
    if isinstance(value, Mapping):
        kept = {k: _comparable(v) for k, v in value.items()}
        if kept.get('type') == 'BN':
            kept = {k: v for k, v in kept.items() if k not in ('requires_grad', 'momentum')}
            kept.setdefault('eps', 1e-5)
        return kept
    if isinstance(value, (list, tuple)):
        return tuple(map(_comparable, value))
    return value


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        plain = {key: _plain(value) for key, value in node.items()}
        if isinstance(plain.get('type'), (str, type)):
            plain['type'] = _plain_type(plain['type'])
        return plain
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(value) for value in node)
    return node


def _plain_type(kind: str | type) -> str:
    # configs of MMEngine's newer style have classes, and 'mmpretrain.models...ResNet' as text
    name = kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__qualname__}'
    short = short_name(name) if name.startswith('mmpretrain.') else name
    return 'BN' if short in _SYNCHRONIZED else short


def short_name(kind: object) -> str:
    """'HGKD' for a class, its whole name or its name with a scope."""
    name = kind.__qualname__ if isinstance(kind, type) else str(kind)
    return name.rsplit('.', 1)[-1]


def _types(node: Any) -> list[object]:
    if isinstance(node, Mapping):
        own = [value for key, value in node.items() if key in ('type', '_scope_')]
        return own + [name for value in node.values() for name in _types(value)]
    if isinstance(node, (list, tuple)):
        return [name for value in node for name in _types(value)]
    return []


def _check_known(name: object) -> None:
    found = None
    registry = MODELS
    # Registry.get would import what it does not know.
    while isinstance(name, str) and re.fullmatch(r'\w+', name) and found is None and registry:
        found = registry.module_dict.get(name)
        registry = registry.parent
    home = f'{getattr(found, "__module__", "")}.'
    if not (isinstance(found, type) and issubclass(found, nn.Module) and home.startswith(_HOMES)):
        raise ValueError(
            f'The config in the checkpoint names {name!r}, which is neither a backbone nor a layer '
            'of mmpretrain. If it is your own, give the config file of the run with --config.'
        )
