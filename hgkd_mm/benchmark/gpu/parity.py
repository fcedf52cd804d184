"""Are the engine's numbers those of masked-dense in float64, on this device?"""

from __future__ import annotations

import copy

import timm
import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

from ..encoder import autocast
from .context import Context, Findings
from .precision import free_memory, precise

CELL, MASK_RATIO = 32, 0.6
KINDS = ('outputs', 'input gradient', 'parameter gradients', 'running statistics')
# Of the norm of each tensor. In float32 the errors of some fifty layers add up, and a value that
# lies at the kink of a ReLU may fall to either side of it.
FLOAT32_BOUND = 1e-3
# bfloat16 rounds the same numbers in another order.
BFLOAT16_FACTOR = 1.5
# Of the largest norm of a kind. Some gradients are zero but for rounding, such as those of a
# bias before a batch norm, and an error relative to them says nothing.
FLOOR = 1e-3
NETWORK_SEED, NOISE_SEED = 0, 1


def parity(context: Context, found: Findings) -> None:
    """Largest relative error of any tensor of a kind, in float32 without TF32 and in bfloat16."""
    table = found.table(
        f'Largest ||a - b|| / ||b|| over the tensors of a kind, b by masked_dense in float64; '
        f'batch {context.sizes.parity_batch}, {context.sizes.image} px, mask ratio {MASK_RATIO}',
        ('network', 'kind', 'float32', 'bound', 'bfloat16', 'masked_dense in bfloat16', 'bound'),
    )
    for name in context.sizes.parity:
        if found.out_of_time(context, name):
            break
        with precise():
            errors = compare(name, context)
        for kind in errors['float32']:
            single, half, dense = (errors[which][kind] for which in errors)
            allowed = BFLOAT16_FACTOR * dense
            numbers = single, FLOAT32_BOUND, half, dense, allowed
            table.rows.append((name, kind, *(f'{number:.2g}' for number in numbers)))
            keys = 'float32', 'float32_bound', 'bfloat16', 'bfloat16_dense', 'bfloat16_bound'
            table.records.append(
                {'network': name, 'kind': kind, **dict(zip(keys, numbers, strict=True))}
            )
            # Written so that a NaN is refused as well.
            if not single <= FLOAT32_BOUND:
                found.broken.append(
                    f'{name}, {kind}, float32: {single:.2g} is more than {FLOAT32_BOUND:g}.'
                )
            if not half <= allowed:
                found.broken.append(
                    f'{name}, {kind}, bfloat16: {half:.2g} is more than {allowed:.2g}.'
                )
        free_memory()


def compare(name: str, context: Context) -> dict[str, dict[str, float]]:
    """Errors by kind of 'float32' and 'bfloat16' by tiles, and 'dense' by masked_dense."""
    torch.manual_seed(NETWORK_SEED)
    network = _randomised(timm.create_model(name, features_only=True))
    size, batch = context.sizes.image, context.sizes.parity_batch
    images = torch.randn(batch, 3, size, size)
    grid = (size // CELL, size // CELL)
    mask = CellMask.random(batch=batch, grid=grid, mask_ratio=MASK_RATIO).to(context.device)
    wanted = _run(network, images, mask, 'masked_dense', torch.float64, context.device)

    def errors(engine: str, dtype: torch.dtype) -> dict[str, float]:
        got = _run(network, images, mask, engine, dtype, context.device)
        # A network without batch norms has no statistics.
        return {kind: largest_error(got[kind], wanted[kind]) for kind in KINDS if wanted[kind]}

    return {
        'float32': errors('tiles', torch.float32),
        'bfloat16': errors('tiles', torch.bfloat16),
        'dense': errors('masked_dense', torch.bfloat16),
    }


def largest_error(got: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest ||a - b|| / ||b|| over pairs of tensors; ``FLOOR`` tells what ||b|| is at least."""
    least = FLOOR * max(float(b.double().norm()) for b in wanted)
    errors = [
        float((a.double() - b.double()).norm()) / max(float(b.double().norm()), least)
        for a, b in zip(got, wanted, strict=True)
    ]
    return max(errors)


def _run(
    network: nn.Module,
    images: Tensor,
    mask: CellMask,
    engine: str,
    dtype: torch.dtype,
    device: str,
) -> dict[str, list[Tensor]]:
    """Tensors by kind; bfloat16 is autocast of a network in float32."""
    held = torch.float32 if dtype == torch.bfloat16 else dtype
    network = copy.deepcopy(network).to(device, held).train()
    x = images.to(device, held, copy=True).requires_grad_()
    with autocast(torch.bfloat16 if held != dtype else torch.float32, device):
        maps = network(sparsify(x, mask, engine))
    rows = [m.rows for m in maps]
    # Any direction but that of the squares, to whose sum a normalised map gives no gradient.
    noise = torch.Generator().manual_seed(NOISE_SEED)
    torch.autograd.backward(
        rows, [torch.randn(r.shape, generator=noise).to(r) / len(r) for r in rows]
    )
    return {
        'outputs': [r.detach() for r in rows],
        'input gradient': [x.grad],
        'parameter gradients': [p.grad for p in network.parameters() if p.grad is not None],
        'running statistics': [buffer for buffer in network.buffers()],
    }


def _randomised(network: nn.Module) -> nn.Module:
    """With no norm or scale at the zero or one that would hide a branch or a gradient."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network.train()
