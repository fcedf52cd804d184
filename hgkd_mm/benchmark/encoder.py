"""One training step of an encoder: dense, under each engine, and as mmpretrain's SparK takes it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import timm
import torch
from torch import Tensor, nn

from hgkd_mm.sparse import ENGINE_NAMES, GraphedNetwork, SparseFeatureMap, sparsify

from .report import Table
from .timing import Settings, measure, saved_bytes, step_row

# Kinds of a step beside 'dense' and the engines.
SPARK, COMPILED, GRAPH = 'mmpretrain sparse', 'dense, torch.compile', 'tiles, CUDA graph'

_STAGES = dict(out_indices=(0, 1, 2, 3))
_SPARSE_BN = dict(type='mmpretrain.SparseBatchNorm2d')
# What mmpretrain's SparK trains in place of timm's network: dense ops and a mask after each.
SPARK_NETWORKS = {
    **{
        f'resnet{depth}': dict(type='SparseResNet', depth=depth, norm_cfg=_SPARSE_BN, **_STAGES)
        for depth in (18, 50, 101)
    },
    'convnext_tiny': dict(type='SparseConvNeXt', arch='tiny', gap_before_output=False, **_STAGES),
}


def build_encoder(name: str) -> nn.Module:
    """timm's network, which returns its last four maps, as a decoder reads them."""
    return timm.create_model(name, features_only=True, out_indices=(-4, -3, -2, -1))


def autocast(dtype: torch.dtype, device: str) -> AbstractContextManager:
    """Autocast to a half type; nothing for float32, which older torch refuses even when off."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.split(':')[0], dtype=dtype)


def backward_of_sum(maps: list[Tensor]) -> None:
    """The backward pass from the sum of all maps, by a gradient that lies in memory.

    The sum's own is an expanded scalar, which kernels of dense maps read a value at a time.
    """
    torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])


class EncoderStep:
    """Forward and backward of an encoder alone, a new mask at every step.

    The gradient is that of the sum of all output maps. Drawing the mask and building its
    index tables is part of the step. Weights and images are channels-last.

    Args:
        network: returns a sequence of maps.
        settings: of images, masks, type and device.
        kind: an engine of ``sparsify``, 'dense', ``COMPILED``, ``GRAPH``, or ``SPARK`` for one
            of ``SPARK_NETWORKS``.
    """

    def __init__(self, network: nn.Module, settings: Settings, kind: str) -> None:
        network = network.to(settings.device, memory_format=torch.channels_last)
        network.train()  # mmpretrain's returns None
        self.network = torch.compile(network) if kind == COMPILED else network
        self.graphed = GraphedNetwork(network, None)
        self.settings = settings
        self.kind = kind
        self.images = settings.images()

    def forward(self) -> list[Tensor]:
        settings = self.settings
        inputs: Tensor | SparseFeatureMap = self.images
        if self.kind == SPARK:
            from mmpretrain.models.selfsup.spark import SparseHelper

            # Its layers read the mask from a class.
            SparseHelper._cur_active = settings.draw_mask().visible[:, None]
        elif self.kind in ENGINE_NAMES:
            inputs = sparsify(inputs, settings.draw_mask(), self.kind)
        with autocast(settings.dtype, settings.device):
            if self.kind == GRAPH:
                maps, _ = self.graphed(self.images, settings.draw_mask())
            else:
                maps = self.network(inputs)
        return [m if isinstance(m, Tensor) else m.data for m in maps]

    def __call__(self) -> None:
        self.network.zero_grad(set_to_none=True)
        backward_of_sum(self.forward())

    def saved_bytes(self) -> int | None:
        """What the forward pass keeps; None where torch.compile or a graph decides it."""
        if self.kind in (COMPILED, GRAPH):
            return None
        return saved_bytes(self.forward, [self.images, *self.network.parameters()])


def encoder_steps(settings: Settings, kinds: Sequence[str]) -> dict[str, EncoderStep]:
    """Steps of timm's network ``settings.network`` and of SparK's own, by kind."""
    network = build_encoder(settings.network)
    return {
        kind: EncoderStep(_spark(settings.network) if kind == SPARK else network, settings, kind)
        for kind in kinds
    }


def _spark(name: str) -> nn.Module:
    import mmpretrain.models  # noqa: F401  registers
    from mmpretrain.registry import MODELS

    return MODELS.build(copy.deepcopy(SPARK_NETWORKS[name]))


def measure_encoder(table: Table, settings: Settings, kinds: Sequence[str]) -> None:
    """Adds a row for each kind, the first of which is 'dense': time and memory of its step."""
    steps = encoder_steps(settings, kinds)
    saved = {kind: step.saved_bytes() for kind, step in steps.items()}
    case = {
        'network': settings.network,
        'batch': settings.batch,
        'mask ratio': settings.mask_ratio,
        'type': settings.type_name,
    }
    for result in measure(steps, settings, 'dense'):
        kept = saved[result.name]
        memory = {
            'saved MiB': None if kept is None else kept / 2**20,
            'saved, of dense': None if kept is None else kept / saved['dense'],
        }
        row = step_row(result, steps[result.name], settings, 'dense')
        table.rows.append({**case, **row, **memory})
