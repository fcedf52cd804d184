"""A slow reading of submanifold sparse convolution, independent of both engines.

A dense network runs unchanged on dense maps; while it does, each torch function that looks
across space is answered here: its input is multiplied by the mask (enlarged by
``F.interpolate``), the dense op runs, and its output is multiplied again. Statistics over
space are written out with sums over visible positions.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

WINDOWED = (
    torch.conv2d,
    F.conv2d,
    F.max_pool2d,
    torch.max_pool2d,
    F.avg_pool2d,
    F.pad,
    F.interpolate,
)
MEANS = (torch.mean, Tensor.mean)
NORMS = (torch.norm, Tensor.norm)


def enlarge(visible: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """(B, 1, h, w) ones at visible positions."""
    return F.interpolate(visible[:, None].to(dtype), size=tuple(size), mode='nearest')


class _Masked(TorchFunctionMode):
    """Answers for dense maps; what is not a map, pooled vectors say, is left alone."""

    def __init__(self, visible: Tensor) -> None:
        super().__init__()
        self.visible = visible

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in WINDOWED:
            return self._windowed(func, args, kwargs)
        if func is F.adaptive_avg_pool2d:
            return self._mean(args[0], (2, 3), True)
        if func in MEANS and self._over_space(args, kwargs):
            return self._mean(args[0], self._dims(args, kwargs), kwargs.get('keepdim', False))
        if func in NORMS and len(self._dims(args, kwargs, 2)) == 2:
            return self._norm(args[0], self._dims(args, kwargs, 2))
        if func is F.batch_norm and self._is_map(args[0]):
            return self._batch_norm(*args, **kwargs)
        if func is F.group_norm and self._is_map(args[0]):
            return self._group_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _is_map(self, x: Tensor, axes: Sequence[int] = (2, 3)) -> bool:
        if x.dim() != 4:
            return False
        size, grid = [x.shape[a] for a in axes], self.visible.shape[1:]
        whole = all(s % g == 0 for s, g in zip(size, grid, strict=True))
        return whole and size != [1, 1]

    def _mask(self, x: Tensor, axes: Sequence[int] = (2, 3)) -> Tensor:
        mask = enlarge(self.visible, [x.shape[a] for a in axes], x.dtype)
        return mask if tuple(axes) == (2, 3) else mask.permute(0, 2, 3, 1)

    def _keep(self, x: Tensor) -> Tensor:
        return x * self._mask(x) if self._is_map(x) else x

    def _windowed(self, func, args, kwargs) -> Tensor:
        return self._keep(func(self._keep(args[0]), *args[1:], **kwargs))

    @staticmethod
    def _dims(args, kwargs, place: int = 1) -> tuple[int, ...]:
        dims = kwargs.get('dim', args[place] if len(args) > place else None)
        dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
        return tuple(sorted(d % args[0].dim() for d in dims))

    def _over_space(self, args, kwargs) -> bool:
        dims = self._dims(args, kwargs)
        return dims in ((1, 2), (2, 3)) and self._is_map(args[0], dims)

    def _mean(self, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
        m = self._mask(x, dims)
        total = (x * m).sum(tuple(dims), keepdim=True)
        mean = total / m.sum(tuple(dims), keepdim=True).clamp(min=1)
        return mean if keepdim else mean.flatten(1)

    def _norm(self, x: Tensor, dims: Sequence[int]) -> Tensor:
        return (x * self._mask(x, dims)).square().sum(tuple(dims), keepdim=True).sqrt()

    def _batch_norm(
        self, x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5
    ) -> Tensor:
        m = self._mask(x)
        if training:
            count = m.sum()
            mean = (x * m).sum((0, 2, 3)) / count
            var = ((x - mean.view(1, -1, 1, 1)).square() * m).sum((0, 2, 3)) / count
            with torch.no_grad():
                running_mean.mul_(1 - momentum).add_(momentum * mean)
                running_var.mul_(1 - momentum).add_(momentum * var * count / (count - 1))
        else:
            mean, var = running_mean, running_var
        scale = weight / (var + eps).sqrt()
        return ((x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)) * m

    def _group_norm(self, x, num_groups, weight=None, bias=None, eps=1e-5) -> Tensor:
        m = self._mask(x)[:, None]
        groups = x.unflatten(1, (num_groups, -1))
        count = m.sum((2, 3, 4), keepdim=True).clamp(min=1) * groups.shape[2]
        mean = (groups * m).sum((2, 3, 4), keepdim=True) / count
        var = ((groups - mean).square() * m).sum((2, 3, 4), keepdim=True) / count
        out = ((groups - mean) / (var + eps).sqrt()).flatten(1, 2)
        return (out * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)) * m[:, 0]


class _Root(nn.Module):
    def __init__(self, network: nn.Module, visible: Tensor) -> None:
        super().__init__()
        self.network, self.visible = network, visible

    def forward(self, x: Tensor) -> list[Tensor]:
        with _Masked(self.visible):
            outs = self.network(x)
            outs = outs if isinstance(outs, list | tuple) else [outs]
            return [_keep_visible(out, self.visible) for out in outs]


def _keep_visible(out: Tensor, visible: Tensor) -> Tensor:
    return out if out.dim() != 4 else out * enlarge(visible, out.shape[-2:], out.dtype)


def masked_copy(network: nn.Module, visible: Tensor) -> nn.Module:
    """A copy of a dense network that computes the sparse result the slow way."""
    return _Root(copy.deepcopy(network), visible)


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
    outs = network(inputs)
    outs = outs if isinstance(outs, list | tuple) else [outs]
    outs = [o if isinstance(o, Tensor) else o.to_dense() for o in outs]
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

    A gradient that vanishes by construction (a bias in front of a batch norm) has no scale of
    its own. It is what lies below 1e-12 of the largest gradient; it must do so in both.
    """
    errors = {}
    for kind, tensors in want.items():
        assert len(tensors) == len(got[kind]), kind
        assert all(t.isfinite().all() for t in [*tensors, *got[kind]]), f'{kind} has NaN or inf'
        largest = max((t.abs().max().item() for t in tensors), default=0.0)
        errors[kind] = 0.0
        for a, b in zip(got[kind], tensors, strict=True):
            scale = b.abs().max().item()
            if scale <= 1e-12 * largest:
                assert a.abs().max() <= 1e-12 * largest, f'a {kind} that vanishes does not here'
            else:
                errors[kind] = max(errors[kind], (a - b).abs().max().item() / scale)
    return errors
