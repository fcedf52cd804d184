"""One training step of an encoder under each engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, SparseFeatureMap, sparsify


@dataclass
class EncoderSteps:
    """What is timed and weighed.

    Attributes:
        train: training step by engine.
        forward: forward pass by engine.
        known: parameters and images, which are there anyway and do not count as saved.
    """

    train: dict[str, Callable[[], None]]
    forward: dict[str, Callable[[], object]]
    known: list[Tensor]


def autocast(dtype: torch.dtype, device: str) -> AbstractContextManager:
    """Autocast to a half type; nothing for float32, which older torch refuses even when off."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.split(':')[0], dtype=dtype)


def backward_of_sum(maps: list[Tensor]) -> None:
    """The backward pass from the sum of all maps, by a gradient that lies in memory.

    The sum's own is one number seen everywhere, which kernels of dense maps read a value at a time.
    """
    torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])


def encoder_steps(
    network: nn.Module,
    *,
    batch: int,
    size: int,
    cell: int,
    mask_ratio: float,
    engines: tuple[str, ...] = ('dense', 'tiles', 'masked_dense'),
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
) -> EncoderSteps:
    """Forward and backward of the encoder alone, a new mask at every step.

    The gradient is that of the sum of all output maps. Drawing the mask and building its
    index tables is part of the step. Weights and images are channels-last for all.

    Args:
        network: returns a tuple of maps; ``dense`` runs it on full images.
        batch: images a step.
        size: image height and width, pixels.
        cell: side of a mask cell, pixels.
        mask_ratio: hidden fraction.
        engines: 'dense' and engines of ``sparsify``.
        dtype: float32, or bfloat16 for autocast.
        device: 'cpu' or 'cuda'.

    Returns:
        The steps, and what ``saved_bytes`` needs.
    """
    network = network.to(device, memory_format=torch.channels_last)
    network.train()
    images = torch.randn(batch, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    grid = (size // cell, size // cell)

    def forward(engine: str) -> list[Tensor]:
        inputs: Tensor | SparseFeatureMap = images
        if engine != 'dense':
            mask = CellMask.random(batch=batch, grid=grid, mask_ratio=mask_ratio, device=device)
            inputs = sparsify(images, mask, engine)
        with autocast(dtype, device):
            maps = network(inputs)
        return [m if isinstance(m, Tensor) else m.data for m in maps]

    def step(engine: str) -> None:
        network.zero_grad(set_to_none=True)
        backward_of_sum(forward(engine))

    return EncoderSteps(
        train={engine: (lambda e=engine: step(e)) for engine in engines},
        forward={engine: (lambda e=engine: forward(e)) for engine in engines},
        known=[*network.parameters(), images],
    )
