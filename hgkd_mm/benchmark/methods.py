"""Each way to compute each product of a convolution, so that ``choose_method`` can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from hgkd_mm.sparse import CellMask
from hgkd_mm.sparse.conv import METHODS as FUNCTIONS
from hgkd_mm.sparse.conv import Conv, choose_method, full_map_pays
from hgkd_mm.sparse.window import Geometry, Window

from .table import Report, Settings, milliseconds
from .timing import measure

# 3 x 3 convolutions of ResNet-50 with cells of 32 px, 7 x 7 ones of ConvNeXt-T, and depthwise
# ones of MobileNetV2: tile, kernel, stride, channels in and out, groups.
CONVOLUTIONS = (
    (8, 3, 1, 64, 64, 1),
    (8, 3, 2, 128, 128, 1),
    (4, 3, 1, 128, 128, 1),
    (4, 3, 2, 256, 256, 1),
    (2, 3, 1, 256, 256, 1),
    (2, 3, 2, 512, 512, 1),
    (1, 3, 1, 512, 512, 1),
    (8, 7, 1, 96, 96, 96),
    (4, 7, 1, 192, 192, 192),
    (2, 7, 1, 384, 384, 384),
    (1, 7, 1, 768, 768, 768),
    (16, 3, 2, 96, 96, 96),
    (4, 3, 1, 192, 192, 192),
    (1, 3, 1, 960, 960, 960),
)
METHODS = tuple(FUNCTIONS)
# A call takes less than a GPU's launches do: this many are queued for each reading of its clock.
CALLS = {'cpu': 1, 'cuda': 6}


def methods_report(
    settings: Settings, convolutions: Sequence[tuple[int, ...]] = CONVOLUTIONS
) -> Report:
    """Milliseconds of each method for the forward and both gradients; a star marks the chosen.

    Args:
        settings: ``network`` does not count.
        convolutions: tile, kernel, stride, channels in and out, groups of each.
    """
    report = Report(
        f'batch {settings.batch}, mask ratio {settings.mask_ratio}, ms (* chosen)',
        ('tile', 'kernel', 'stride', 'channels', 'groups', 'product', *METHODS),
    )
    cells = settings.size // settings.cell
    for tile, kernel, stride, inputs, outputs, groups in convolutions:
        make = partial(torch.randn, device=settings.device, dtype=settings.dtype)
        mask = CellMask.random(
            batch=settings.batch,
            grid=(cells, cells),
            mask_ratio=settings.mask_ratio,
            device=settings.device,
        )
        window = Window.of(kernel, stride, kernel // 2)
        conv = Conv(mask, Geometry.of(window, (tile, tile), mask.grid), groups)
        chosen = choose_method(conv, full_map_pays(mask.device.type))
        weight = make(outputs, inputs // groups, kernel, kernel)
        weight = weight.contiguous(memory_format=torch.channels_last)
        rows = make(mask.num_visible * tile**2, inputs)
        grad = make(mask.num_visible * (tile // stride) ** 2, outputs)
        products = (
            ('forward', (rows, weight)),
            ('grad_input', (grad, weight)),
            ('grad_weight', (grad, rows, weight)),
        )
        for product, tensors in products:
            methods = {m: getattr(FUNCTIONS[m], product) for m in METHODS}
            own = next(m for m in METHODS if methods[m] is getattr(chosen, product))
            steps = {
                method: partial(methods[method], *tensors, conv)
                for method in METHODS[: 2 if groups > 1 else None]
            }
            timed = measure(
                steps,
                reference='halo',
                rounds=settings.rounds,
                device=settings.device,
                calls=CALLS[mask.device.type],
            )
            times = {r.name: r.median * 1000 for r in timed}
            layer = tuple(map(str, (tile, kernel, stride, f'{inputs} > {outputs}', groups)))
            shown = (
                f'{milliseconds(times[m] / 1000)}{"*" * (m == own)}' if m in times else ''
                for m in METHODS
            )
            report.rows.append((*layer, product, *shown))
            report.records.append({'layer': layer, 'product': product, 'chosen': own, **times})
    return report
