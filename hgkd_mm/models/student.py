"""Widths of a student, known before its weights are drawn.

Heads draw their weights before the backbone does, and keep to this order so that a seed gives
the weights of earlier versions. Widths of the backbone and neck are therefore read from copies
that are built without memory, on PyTorch's meta device.
"""

from __future__ import annotations

import contextlib
import copy
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
        neck: config with a free ``in_channels``, or None.
        output: StudentOutput or TransformerOutput.
        image_size: pixels of the square image of the dry run.
    """

    def __init__(
        self, backbone: Part, neck: dict | None = None, *, output: type, image_size: int = 64
    ) -> None:
        self.output = output
        self.given_backbone = backbone
        self._given_neck = neck
        self._size = image_size

    @cached_property
    def backbone(self) -> nn.Module:
        """The backbone; one that is yet to be built has no memory for its weights."""
        if isinstance(self.given_backbone, nn.Module):
            return self.given_backbone
        return _without_side_effects(lambda device: _on(device, self.given_backbone))

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """Channels of the backbone's maps, fine to coarse."""
        return _without_side_effects(self._dry_run)

    @cached_property
    def neck_config(self) -> dict | None:
        """The neck's config with the channels of the backbone."""
        if self._given_neck is None:
            return None
        return with_derived('model.neck', self._given_neck, {'in_channels': self.channels})

    @cached_property
    def neck(self) -> nn.Module | None:
        """The neck, without memory for its weights."""
        if self.neck_config is None:
            return None
        return _without_side_effects(lambda device: _on(device, self.neck_config))

    def _dry_run(self, device: str) -> tuple[int, ...]:
        backbone = _on(device, self.given_backbone)
        backbone.eval()
        dtype = next((p.dtype for p in backbone.parameters()), None)
        image = torch.zeros(1, 3, self._size, self._size, device=device, dtype=dtype)
        return tuple(x.shape[1] for x in as_tuple(backbone(image)))


def with_derived(key: str, config: dict, derived: Mapping[str, Any]) -> dict:
    """A config with the arguments that follow from other parts.

    Args:
        key: config key of the part.
        config: its config. An argument that it gives with the derived value is ignored with a
            warning.
        derived: argument to value.

    Raises:
        ValueError: an argument is given with another value.
    """
    repeated = {name: config[name] for name in derived if config.get(name) is not None}
    for name, value in repeated.items():
        if (tuple(value) if isinstance(value, list) else value) != derived[name]:
            raise ValueError(
                f'{key}.{name} is {value}, but the backbone, neck and teacher of this model make '
                f'it {derived[name]}: leave {key}.{name} out.'
            )
    if repeated:
        print_log(
            f'{key}: {sorted(repeated)} follow from the other parts of the model: leave them out.',
            logger='current',
            level=logging.WARNING,
        )
    return {**config, **derived}


def as_tuple(maps: object) -> tuple:
    """One map or several, as a tuple."""
    return tuple(maps) if isinstance(maps, list | tuple) else (maps,)


def _without_side_effects(work: Callable[[str], T]) -> T:
    """``work`` on the meta device, or on the CPU where it fails; no random number is drawn."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Some networks read values of tensors while they are built, which meta tensors lack.
        with contextlib.suppress(Exception):
            return work('meta')
        return work('cpu')


def _on(device: str, part: Part) -> nn.Module:
    if isinstance(part, nn.Module):
        return copy.deepcopy(part).to(device)
    with torch.device(device):
        return MODELS.build(copy.deepcopy(part))
