"""A slow reading of submanifold sparse convolution, independent of both engines.

Every spatial module of a dense network is wrapped: the dense op runs on a map with zeros at
hidden positions, and its output is multiplied by the mask, which is enlarged by
``F.interpolate``. Batch norm is written out with sums over visible positions.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def enlarge(visible: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """(B, 1, h, w) ones at visible positions."""
    return F.interpolate(visible[:, None].to(dtype), size=tuple(size), mode='nearest')


class _Masked(nn.Module):
    def __init__(self, inner: nn.Module, visible: Tensor) -> None:
        super().__init__()
        self.inner, self.visible = inner, visible

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        if out.shape[-2:] == (1, 1) and x.shape[-2:] == (1, 1):
            return out
        return out * enlarge(self.visible, out.shape[-2:], out.dtype)


class _MaskedBatchNorm(nn.Module):
    def __init__(self, inner: nn.BatchNorm2d, visible: Tensor) -> None:
        super().__init__()
        self.inner, self.visible = inner, visible

    def forward(self, x: Tensor) -> Tensor:
        bn = self.inner
        if x.shape[-2:] == (1, 1) and self.visible.shape[-2:] != (1, 1):
            return bn(x)
        m = enlarge(self.visible, x.shape[-2:], x.dtype)
        if bn.training:
            count = m.sum()
            mean = (x * m).sum((0, 2, 3)) / count
            var = ((x - mean.view(1, -1, 1, 1)).square() * m).sum((0, 2, 3)) / count
            with torch.no_grad():
                k = bn.momentum
                bn.running_mean.mul_(1 - k).add_(k * mean)
                bn.running_var.mul_(1 - k).add_(k * var * count / (count - 1))
                bn.num_batches_tracked += 1
        else:
            mean, var = bn.running_mean, bn.running_var
        scale = bn.weight / (var + bn.eps).sqrt()
        out = (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)
        return out * m


class _MaskedGlobalPool(TorchFunctionMode):
    """Global pooling, called as a function or by a module."""

    def __init__(self, visible: Tensor) -> None:
        super().__init__()
        self.visible = visible

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.adaptive_avg_pool2d:
            return func(*args, **(kwargs or {}))
        x = args[0]
        m = enlarge(self.visible, x.shape[-2:], x.dtype)
        return (x * m).sum((2, 3), keepdim=True) / m.sum((2, 3), keepdim=True).clamp(min=1)


class _Root(nn.Module):
    def __init__(self, network: nn.Module, visible: Tensor) -> None:
        super().__init__()
        self.network, self.visible = network, visible

    def forward(self, x: Tensor) -> object:
        with _MaskedGlobalPool(self.visible):
            return self.network(x)


def masked_copy(network: nn.Module, visible: Tensor) -> nn.Module:
    """A copy of a dense network that computes the sparse result the slow way."""
    network = copy.deepcopy(network)

    def wrap(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            if isinstance(child, SPATIAL):
                setattr(parent, name, _Masked(child, visible))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _MaskedBatchNorm(child, visible))
            else:
                wrap(child)

    wrap(network)
    return _Root(network, visible)


def run(network: nn.Module, images: Tensor, inputs: object, seed: int = 0) -> dict[str, list]:
    """Outputs, gradients of a random linear functional of them, and buffers.

    Args:
        network: returns maps, dense or sparse.
        images: leaf tensor whose gradient is wanted.
        inputs: what the network is called on, made from ``images``.
        seed: of the functional.
    """
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    outs = [o if isinstance(o, Tensor) else o.to_dense() for o in network(inputs)]
    loss = sum((o * torch.randn(o.shape, generator=g, dtype=o.dtype)).sum() for o in outs)
    loss.backward()
    return {
        'outputs': [o.detach() for o in outs],
        'gradients': [p.grad for p in network.parameters() if p.grad is not None],
        'image gradient': [images.grad],
        'buffers': [b.double() for b in network.buffers() if b.dtype != torch.bool],
    }


def relative_error(got: dict[str, list], want: dict[str, list]) -> dict[str, float]:
    """Largest difference by kind, relative to each tensor's largest value.

    A gradient that vanishes by construction (a bias in front of a batch norm) has no scale
    of its own and is measured against a millionth of the largest gradient.
    """
    errors = {}
    for kind, tensors in want.items():
        assert len(tensors) == len(got[kind]), kind
        assert all(t.isfinite().all() for t in [*tensors, *got[kind]]), f'{kind} has NaN or inf'
        floor = max(t.abs().max().item() for t in tensors) * 1e-6 + 1e-30
        errors[kind] = max(
            ((a - b).abs().max() / b.abs().max().clamp(min=floor)).item()
            for a, b in zip(got[kind], tensors, strict=True)
        )
    return errors
