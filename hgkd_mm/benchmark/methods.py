"""Each way to compute each product of a convolution, so that ``choose_method`` can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from hgkd_mm.sparse.conv import METHODS, Conv, choose_method, full_map_pays
from hgkd_mm.sparse.window import Geometry, Window

from .report import Stage
from .timing import Settings, free_memory, measure

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
# On a GPU a call takes less than its launches do: this many are queued for a reading of its clock.
CUDA_CALLS = 6


def measure_methods(
    stage: Stage, settings: Settings, convolutions: Sequence[tuple[int, ...]] = CONVOLUTIONS
) -> None:
    """Milliseconds of each method for the forward and both gradients."""
    table = stage.table(f'ms; {settings.title}')
    calls, chosen, best = CUDA_CALLS if settings.cuda else 1, 0.0, 0.0
    for convolution in convolutions:
        if stage.out_of_time(f'layer {convolution} and later ones'):
            break
        tile, kernel, stride, inputs, outputs, groups = convolution
        layer = {'tile': tile, 'kernel': kernel, 'stride': stride}
        layer |= {'channels': f'{inputs} > {outputs}', 'groups': groups}
        for product, own, steps in _products(settings, *convolution):
            timed = measure(steps, settings, 'halo', calls=calls)
            times = {result.name: 1000 * result.median for result in timed}
            fastest = min(times, key=times.__getitem__)
            shown = {**dict.fromkeys(METHODS), **times, 'chosen': own, 'fastest': fastest}
            table.rows.append({**layer, 'product': product, **shown})
            chosen, best = chosen + times[own], best + times[fastest]
        free_memory()
    stage.notes.append(
        f'The chosen methods take {chosen:.3g} ms in all, the fastest {best:.3g} ms.'
    )


def _products(
    settings: Settings, tile: int, kernel: int, stride: int, inputs: int, outputs: int, groups: int
) -> Iterator[tuple[str, str, dict[str, Callable[[], object]]]]:
    """Name, chosen method and all methods of the forward and of both gradients."""
    make = partial(torch.randn, device=settings.device, dtype=settings.dtype)
    mask = settings.draw_mask()
    window = Window.of(kernel, stride, kernel // 2)
    conv = Conv(mask, Geometry.of(window, (tile, tile), mask.grid), groups)
    chosen = choose_method(conv, full_map_pays(mask.device.type))
    weight = make(outputs, inputs // groups, kernel, kernel)
    weight = weight.contiguous(memory_format=torch.channels_last)
    rows = make(mask.num_visible * tile**2, inputs)
    grad = make(mask.num_visible * (tile // stride) ** 2, outputs)
    for product, tensors in (
        ('forward', (rows, weight)),
        ('grad_input', (grad, weight)),
        ('grad_weight', (grad, rows, weight)),
    ):
        methods = {name: getattr(method, product) for name, method in METHODS.items()}
        own = next(m for m in methods if methods[m] is getattr(chosen, product))
        known = ('halo', 'canvas') if groups > 1 else METHODS
        yield product, own, {m: partial(methods[m], *tensors, conv) for m in known}
