"""Widths of a student, known before its weights are drawn.

Heads draw their weights before the backbone does, and keep to this order so that a seed gives
the weights of earlier versions. Widths of the backbone and neck are therefore read from copies
that are built without memory, on PyTorch's meta device.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import torch
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from torch import nn

Part = dict | nn.Module
T = TypeVar('T')


class Student:
    """Backbone and neck of a student that is yet to be built.

    Args:
        backbone: config or module.
        neck: config, module or None.
        output: StudentOutput or TransformerOutput.
        image_size: pixels of the square image of the dry run.
    """

    def __init__(
        self, backbone: Part, neck: Part | None = None, *, output: type, image_size: int = 64
    ) -> None:
        self.output = output
        self.given_backbone = backbone
        self.given_neck = neck
        self._size = image_size

    @cached_property
    def backbone(self) -> nn.Module:
        """The backbone; one that is yet to be built has no memory for its weights."""
        return _unbuilt(self.given_backbone)

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """Channels of the backbone's maps, fine to coarse."""
        return _without_side_effects(self._dry_run)

    @cached_property
    def neck_config(self) -> Part | None:
        """The neck's config with the channels of the backbone, or the module as it is.

        Raises:
            ValueError: ``in_channels`` is given and differs from the backbone's.
        """
        if self.given_neck is None or not _takes_channels(self.given_neck):
            return self.given_neck
        try:
            derived = {'in_channels': self.channels}
        except Exception:  # whatever a backbone raises that takes no such image
            if isinstance(self.given_neck, nn.Module) or not self.given_neck.get('in_channels'):
                raise
            return self.given_neck
        return with_derived('model.neck', self.given_neck, derived)

    @cached_property
    def neck(self) -> nn.Module | None:
        """The neck; one that is yet to be built has no memory for its weights."""
        return None if self.neck_config is None else _unbuilt(self.neck_config)

    def _dry_run(self, device: str) -> tuple[int, ...]:
        backbone = _on(device, self.given_backbone)
        backbone.eval()
        dtype = next((p.dtype for p in backbone.parameters()), None)
        image = torch.zeros(1, 3, self._size, self._size, device=device, dtype=dtype)
        return tuple(x.shape[1] for x in as_tuple(backbone(image)))


def with_derived(key: str, given: Part, derived: Mapping[str, Any]) -> Part:
    """A config with the arguments that follow from other parts; a module is only compared.

    Args:
        key: config key of the part.
        given: config, or a module with attributes of these names.
        derived: argument to value. An argument that is given with the same value is ignored
            with a warning.

    Raises:
        ValueError: an argument is given with another value.
    """
    arguments = vars(given) if isinstance(given, nn.Module) else given
    repeated = {name: arguments[name] for name in derived if arguments.get(name) is not None}
    for name, value in repeated.items():
        if (tuple(value) if isinstance(value, list) else value) != derived[name]:
            raise ValueError(
                f'{key}.{name} is {value}, but the backbone, neck and teacher of this model make '
                f'it {derived[name]}: leave {key}.{name} out.'
            )
    if isinstance(given, nn.Module):
        return given
    if repeated:
        warn(f'{key}: {sorted(repeated)} follow from the other parts of the model: leave them out.')
    return {**given, **derived}


def as_tuple(maps: object) -> tuple:
    """One map or several, as a tuple."""
    return tuple(maps) if isinstance(maps, list | tuple) else (maps,)


def kind_of(part: Part) -> type | None:
    """The class that a config names, None if none is registered; that of a module."""
    if isinstance(part, nn.Module):
        return type(part)
    kind = part.get('type')
    return MODELS.get(kind) if isinstance(kind, str) else kind


def build(part: Part) -> nn.Module:
    """The module of a config; a module as it is."""
    return part if isinstance(part, nn.Module) else MODELS.build(part)


def warn(message: str) -> None:
    """Writes a warning into the log of the run."""
    print_log(message, logger='current', level=logging.WARNING)


def _without_side_effects(work: Callable[[str], T]) -> T:
    """``work`` on the meta device, or on the CPU where it fails; no random number is drawn."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Some networks read values of tensors while they are built, which meta tensors lack.
        with contextlib.suppress(Exception):
            return work('meta')
        return work('cpu')


def _unbuilt(part: Part) -> nn.Module:
    if isinstance(part, nn.Module):
        return part
    return _without_side_effects(lambda device: _on(device, part))


def _on(device: str, part: Part) -> nn.Module:
    if isinstance(part, nn.Module):
        return copy.deepcopy(part).to(device)
    with torch.device(device):
        return MODELS.build(copy.deepcopy(part))


def _takes_channels(neck: Part) -> bool:
    kind = kind_of(neck)
    return kind is not None and 'in_channels' in inspect.signature(kind).parameters
