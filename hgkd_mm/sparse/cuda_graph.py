"""A network's forward and backward pass on visible cells as CUDA graphs, replayed in every step.

On a fast GPU, a step is bound by the host that queues its kernels (docs/gpu.md); a graph queues
all of them in one call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .cell_mask import CellMask
from .feature_map import SparseFeatureMap
from .tiles import TileMap, autocast_dtype

# Before a capture, so that cuDNN has chosen its kernels and all is allocated that stays.
_WARMUP = 3


class GraphedNetwork:
    """Backbone and neck on visible cells, captured at the first step on a CUDA device.

    The graphs are for one kind of input. Other inputs, such as a smaller last batch, run without
    a graph, and so do steps that add to gradients, and a second forward pass before the backward
    pass of the first: a replay overwrites activations and gradients of the last one.
    The memory of activations and gradients stays reserved.

    Args:
        backbone: gives maps of a SparseFeatureMap.
        neck: decodes them, if any.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None) -> None:
        self.backbone = backbone
        self.neck = neck
        self.parts = nn.ModuleList(part for part in (backbone, neck) if part is not None)
        self._kind: Hashable = None
        self._graphs: _Graphs | None = None

    def __call__(
        self, images: Tensor, mask: CellMask
    ) -> tuple[tuple[SparseFeatureMap, ...], Tensor | None]:
        """The maps, and the decoded map if there is a neck, of images (B, 3, H, W)."""
        graphed = images.is_cuda and torch.is_grad_enabled() and mask.per_image is not None
        if not graphed or any(p.grad is not None for p in self.trained):
            return self.run(images, mask)
        inputs = images.shape, images.dtype, mask.grid, mask.per_image
        kind = *inputs, autocast_dtype('cuda'), self.backbone.training
        if self._graphs is None:
            self._kind, self._graphs = kind, _Graphs(self, images, mask)
        if kind != self._kind or self._graphs.in_use():
            return self.run(images, mask)
        outputs = _Replay.apply(self._graphs, images, mask.numbers, *self.trained)
        captured = self._graphs.maps
        data = outputs[: len(captured)]
        maps = tuple(m.of_mask(d, mask) for m, d in zip(captured, data, strict=True))
        for one in maps:  # the backward pass may read this memory: no op in place writes to it
            one.shared = True
        return maps, None if self.neck is None else outputs[-1]

    def run(
        self, images: Tensor, mask: CellMask
    ) -> tuple[tuple[SparseFeatureMap, ...], Tensor | None]:
        """The same without a graph."""
        maps = self.backbone(TileMap.of(images, mask.to(images.device)))
        maps = (maps,) if isinstance(maps, SparseFeatureMap) else tuple(maps)
        return maps, None if self.neck is None else self.neck(maps)

    @cached_property
    def trained(self) -> list[nn.Parameter]:
        """The parameters of the graphs, listed once: every step passes them on."""
        return [p for p in self.parts.parameters() if p.requires_grad]


class _Graphs:
    """A forward and a backward pass in static memory."""

    def __init__(self, network: GraphedNetwork, images: Tensor, mask: CellMask) -> None:
        self.images, self.numbers = images.clone(), mask.numbers.clone()
        self._network, self._grid = network, mask.grid
        self.last: Callable[[], Any] = lambda: None  # the last replay's context, while it is needed
        dtype = autocast_dtype('cuda')
        # Casts of weights are part of the graph: none may come from a cache.
        with torch.autocast('cuda', dtype, enabled=dtype is not None, cache_enabled=False):
            self._warm_up()
            self._capture()

    def in_use(self) -> bool:
        """Whether the backward pass of the last replay is still to come."""
        last = self.last()
        return last is not None and not last.done

    def _warm_up(self) -> None:
        buffers = list(self._network.parts.buffers())
        before = [b.clone() for b in buffers]
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(_WARMUP):
                outputs = self._forward()
                self._gradients(outputs, [torch.zeros_like(o) for o in outputs])
                del outputs
        here.wait_stream(aside)
        with torch.no_grad():  # running statistics, which each pass changed
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)

    def _capture(self) -> None:
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: pin_memory's allocates, NCCL's looks at events.
        how = dict(pool=torch.cuda.graph_pool_handle(), capture_error_mode='thread_local')
        with torch.cuda.graph(self.forward, **how):
            outputs = self._forward()
        self.output_grads = [torch.zeros_like(o) for o in outputs]
        with torch.cuda.graph(self.backward, **how):
            self.parameter_grads = self._gradients(outputs, self.output_grads)
        # Without their autograd graph, which would keep nodes of the capture's stream alive.
        self.outputs = [o.detach() for o in outputs]
        self.maps = tuple(m.with_data(m.data.detach()) for m in self.maps)

    def _forward(self) -> list[Tensor]:
        mask = CellMask.of_numbers(self.numbers, batch=len(self.images), grid=self._grid)
        self.maps, decoded = self._network.run(self.images, mask)
        return [m.data for m in self.maps] + ([] if decoded is None else [decoded])

    def _gradients(self, outputs: list[Tensor], grads: list[Tensor]) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(outputs, self._network.trained, grads, allow_unused=True)


class _Replay(torch.autograd.Function):
    """One step of the graphs."""

    @staticmethod
    def forward(
        ctx, graphs: _Graphs, images: Tensor, numbers: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.graphs, ctx.done = graphs, False
        graphs.last = weakref.ref(ctx)
        graphs.images.copy_(images)
        graphs.numbers.copy_(numbers)
        graphs.forward.replay()
        return tuple(output.detach() for output in graphs.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        for static, grad in zip(ctx.graphs.output_grads, grads, strict=True):
            static.copy_(grad)
        ctx.graphs.backward.replay()
        ctx.done = True
        given = (None if g is None else g.detach() for g in ctx.graphs.parameter_grads)
        return None, None, None, *given
