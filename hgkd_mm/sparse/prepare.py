"""Activation checkpointing and SyncBN on a SparseFeatureMap."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .feature_map import SparseFeatureMap
from .rows import at_least_float32


def prepare(network: nn.Module) -> nn.Module:
    """Makes activation checkpointing and SyncBN of a network work on masked images.

    Both go through autograd functions that see no tensor in a SparseFeatureMap, and would cut
    the gradient.

    - Blocks with ``with_cp=True`` (the MM family's switch, which recomputes reentrantly) are
      recomputed by torch's composable checkpoint, without reentrance; the switch is turned off.
    - ``nn.SyncBatchNorm`` becomes :class:`SparseSyncBatchNorm`.

    Weights keep their names, and dense images work as before. As with torch's own
    checkpointing, running statistics move twice a step in recomputed blocks, and a block must
    not change its input in place.

    Args:
        network: changed in place, and returned.

    Raises:
        ValueError: a block with ``with_cp=True`` drops paths or values at random: the random
            state of a GPU would not be restored for the recomputation.
    """
    from torch.distributed._composable import checkpoint  # not in every build of torch

    switched_on = {name: m for name, m in network.named_modules() if getattr(m, 'with_cp', False)}
    for name, module in switched_on.items():
        # Networks have the switch as well as their blocks, which recompute themselves.
        if sum(inner in switched_on.values() for inner in module.modules()) == 1:
            _refuse_randomness(name, module)
            checkpoint(module)
    for module in switched_on.values():
        module.with_cp = False
    for module in network.modules():
        if type(module) is nn.SyncBatchNorm:
            # As torch's parametrizations do: weights, hooks and references to it stay.
            module.__class__ = SparseSyncBatchNorm
    return network


def _refuse_randomness(name: str, block: nn.Module) -> None:
    for module in block.modules():
        chance = getattr(module, 'drop_prob', None) or getattr(module, 'p', None)
        if isinstance(chance, float) and chance > 0:
            raise ValueError(
                f"Block '{name or '(root)'}' has with_cp=True and drops at random "
                f'({type(module).__name__}, {chance}): masked images cannot be recomputed with '
                'the same draws. Set drop_path_rate=0 (or the dropout to 0) or with_cp=False '
                '(config keys model.backbone.drop_path_rate and model.backbone.with_cp).'
            )


class SparseSyncBatchNorm(nn.SyncBatchNorm):
    """SyncBN whose statistics count the visible positions of all ranks, however many each has.

    On a SparseFeatureMap the mean and the variance are all-reduced in turn, with gradients, on any
    backend; torch's own would make the host wait for the device in every layer.
    """

    def forward(self, input: Tensor | SparseFeatureMap) -> Tensor | SparseFeatureMap:
        """Normalizes a dense map or a SparseFeatureMap."""
        if not isinstance(input, SparseFeatureMap):
            return super().forward(input)
        if not self._synchronizes():
            return super(nn.SyncBatchNorm, self).forward(input)  # BatchNorm's own
        rows = input.rows
        values = rows.to(at_least_float32(rows.dtype))
        count = values.new_full((1,), len(values))
        sums = self._over_ranks(torch.cat([values.sum(0), count]))
        count = sums[-1]
        mean = sums[:-1] / count
        centered = values - mean
        variance = self._over_ranks(centered.square().sum(0)) / count
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        out = centered * (variance + self.eps).rsqrt()
        if self.affine:
            out = out * self.weight + self.bias
        return input.with_rows(out.to(rows.dtype))

    def _synchronizes(self) -> bool:
        group = self.process_group
        on = dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
        return on and self.training

    def _over_ranks(self, values: Tensor) -> Tensor:
        from torch.distributed.nn.functional import all_reduce  # not in every build of torch

        return all_reduce(values, group=self.process_group or dist.group.WORLD)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or not self.training:
            return
        self.num_batches_tracked.add_(1)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            # momentum=None means plain averages, as in BatchNorm.
            share = self.momentum
            if share is None:
                share = 1.0 / self.num_batches_tracked.to(running.dtype)
            running.lerp_(new.to(running.dtype), share)
