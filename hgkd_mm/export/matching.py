"""Which weight of one network is which of another, found by running both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# of outputs in float64, relative to their largest value; a norm's other eps differs by 1e-7
_TOLERANCE = 1e-9


class _Call(NamedTuple):
    """A module that holds weights itself, as it is called."""

    name: str
    module: nn.Module
    inputs: Tensor

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Its own parameters and buffers by full name, in the order of their registration."""
        own = [
            *self.module.named_parameters(recurse=False),
            *self.module.named_buffers(recurse=False),
        ]
        return [(f'{self.name}.{name}'.removeprefix('.'), value) for name, value in own]


@torch.no_grad()
def match_weights(source: nn.Module, target: nn.Module, size: tuple[int, int]) -> dict[str, str]:
    """The name in ``target`` of each weight of ``source``, which computes the same.

    The modules that hold weights are paired in the order of their calls, and the weights of a
    pair in the order of their registration. Random weights then have to give the same pooled
    features: the last output of ``source``, and what ``target`` gives or passes to the first
    module that has no counterpart, its classifier.

    Args:
        source: network in eval mode; its weights become random, in float64.
        target: network in eval mode; gets these weights, in float64.
        size: height and width of the images that both look at.

    Raises:
        ValueError: the networks do not compute the same.
    """
    generator = torch.Generator().manual_seed(0)
    _randomize(source.double(), generator)
    images = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)
    calls, expected = _run(source, images)
    names = {}
    for call, counterpart in zip(calls, _run(target.double(), images)[0], strict=False):
        for (name, own), (other_name, other) in zip(
            call.tensors(), counterpart.tensors(), strict=True
        ):
            if long_axes(own) != long_axes(other):
                raise ValueError(f'{name} is {tuple(own.shape)}, not {tuple(other.shape)}')
            other.copy_(own.reshape(other.shape))
            names[name] = other_name
    if unpaired := source.state_dict().keys() - names.keys():
        raise ValueError(f'{min(unpaired)} has no counterpart')
    others, found = _run(target, images)
    if len(others) > len(calls):
        found = others[len(calls)].inputs
    if found.shape != expected.shape:
        raise ValueError(f'its features are {tuple(expected.shape)}, not {tuple(found.shape)}')
    difference = (found - expected).abs().max() / expected.abs().max()
    # not >, since it may be NaN
    if not difference <= _TOLERANCE:
        raise ValueError(f'its features differ by {difference:.1e} of their largest value')
    return names


def long_axes(value: Tensor) -> list[int]:
    """The shape without axes of length 1, by which linear layers and 1x1 convolutions differ."""
    return [size for size in value.shape if size != 1]


def _randomize(network: nn.Module, generator: torch.Generator) -> None:
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim > 1:
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        elif value.is_floating_point():
            # no variance may be negative, and no scale hide its branch
            value.uniform_(0.5, 1.0, generator=generator)


def _run(network: nn.Module, images: Tensor) -> tuple[list[_Call], Tensor]:
    """The calls of modules that hold weights, outer ones first, and the last output, pooled."""
    calls: list[_Call] = []
    handles = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: calls.append(_Call(name, module, inputs[0]))
        )
        for name, module in network.named_modules()
        if _Call(name, module, images).tensors()
    ]
    try:
        outputs = network(images)
    finally:
        for handle in handles:
            handle.remove()
    last = outputs if isinstance(outputs, Tensor) else outputs[-1]
    return calls, last.mean((2, 3)) if last.ndim == 4 else last
