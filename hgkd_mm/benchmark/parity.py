"""Are the engine's numbers those of masked-dense in float64, on this device?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import timm
import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

from .encoder import autocast
from .report import Stage
from .timing import Settings, free_memory

ENGINES = ('tiles', 'masked_dense')
KINDS = ('outputs', 'input gradient', 'parameter gradients', 'running statistics')
# Engine and type of each run, and the bound of its errors: at least the first number, and so many
# times the error that masked_dense has in that type. bfloat16 and float32 round the same numbers
# in another order, and a value at the kink of a ReLU may fall to either side of it: a few do in
# float32, so that the largest error of a kind is less even there.
BOUNDS = {torch.float64: (1e-8, 0.0), torch.float32: (1e-4, 3.0), torch.bfloat16: (0.0, 1.5)}
# Of the largest norm of a kind. Some gradients are zero but for rounding, such as those of a
# bias before a batch norm, and an error relative to them says nothing.
FLOOR = 1e-3
NETWORK_SEED, NOISE_SEED = 0, 1


def measure_parity(stage: Stage, settings: Settings, networks: Sequence[str]) -> None:
    """Largest relative error of any tensor of a kind, for timm's networks."""
    table = stage.table(
        'Largest ||a - b|| / ||b|| over the tensors of a kind, b by masked_dense in float64; '
        f'batch {settings.batch}, {settings.size} px, mask ratio {settings.mask_ratio}'
    )
    for name in networks:
        if stage.out_of_time(name):
            continue
        errors = compare(name, settings)
        for kind in errors['tiles', torch.float64]:
            row: dict[str, object] = {'network': name, 'kind': kind}
            for dtype, (least, factor) in BOUNDS.items():
                ours, dense = (errors[engine, dtype][kind] for engine in ENGINES)
                bound, rounded = max(least, factor * dense), str(dtype).removeprefix('torch.')
                names = (rounded, f'{rounded}, masked_dense', f'{rounded}, bound')
                row |= zip(names, (ours, dense, bound), strict=True)
                # Written so that a NaN is refused as well.
                if not ours <= bound:
                    stage.broken.append(
                        f'{name}, {kind}, {rounded}: {ours:.2g} is more than {bound:.2g}.'
                    )
            table.rows.append(row)
        free_memory()


def compare(name: str, settings: Settings) -> dict[tuple[str, torch.dtype], dict[str, float]]:
    """Errors by kind, for each engine and type."""
    torch.manual_seed(NETWORK_SEED)
    network = _randomized(timm.create_model(name, features_only=True))
    images = torch.randn(settings.batch, 3, settings.size, settings.size)
    mask = replace(settings, device='cpu').draw_mask().to(settings.device)
    wanted = _run(network, images, mask, 'masked_dense', torch.float64)
    errors = {}
    for run in product(ENGINES, BOUNDS):
        exact = run == ('masked_dense', torch.float64)
        got = wanted if exact else _run(network, images, mask, *run)
        # A network without batch norms has no statistics.
        errors[run] = {k: largest_error(got[k], wanted[k]) for k in KINDS if wanted[k]}
    return errors


def largest_error(got: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest ||a - b|| / ||b|| over pairs; each ||b|| is at least ``FLOOR`` of the largest."""
    least = FLOOR * max(float(b.double().norm()) for b in wanted)
    errors = [
        float((a.double() - b.double()).norm()) / max(float(b.double().norm()), least)
        for a, b in zip(got, wanted, strict=True)
    ]
    return float(torch.tensor(errors).max())  # unlike max(), a NaN among them is a NaN


def _run(
    network: nn.Module, images: Tensor, mask: CellMask, engine: str, dtype: torch.dtype
) -> dict[str, list[Tensor]]:
    """Tensors by kind, on the mask's device; bfloat16 is autocast of a network in float32."""
    device, held = mask.device, torch.float32 if dtype == torch.bfloat16 else dtype
    network = copy.deepcopy(network).to(device, held).train()
    x = images.to(device, held, copy=True).requires_grad_()
    with autocast(torch.bfloat16 if held != dtype else torch.float32, device.type):
        maps = network(sparsify(x, mask, engine))
    rows = [m.rows for m in maps]
    # Any direction but that of the squares, to whose sum a normalized map gives no gradient.
    noise = torch.Generator().manual_seed(NOISE_SEED)
    torch.autograd.backward(
        rows, [torch.randn(r.shape, generator=noise).to(r) / len(r) for r in rows]
    )
    return {
        'outputs': [r.detach() for r in rows],
        'input gradient': [x.grad],
        'parameter gradients': [p.grad for p in network.parameters() if p.grad is not None],
        'running statistics': list(network.buffers()),
    }


def _randomized(network: nn.Module) -> nn.Module:
    """With no norm or scale at the zero or one that would hide a branch or a gradient."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network.train()
