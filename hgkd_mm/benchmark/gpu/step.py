"""The whole H-GKD step, as it is usually done and as it is done here."""

from __future__ import annotations

import statistics

import torch

from ..table import MIB, milliseconds
from ..timing import measure, peak_bytes
from .context import Context, Findings
from .openmmlab import flagship, import_openmmlab
from .precision import fast

MASK_RATIO = 0.6
COLUMNS = ('step', 'ms', 'range', 'ratio', 'ms to queue', 'peak MiB', 'images/s')
PARTS = ('student', 'decoder', 'teacher', 'loss')


def step(context: Context, found: Findings) -> None:
    """Teacher, student, decoder, losses and the gradient; without data and optimizer."""
    import_openmmlab()
    from ..hgkd_step import VARIANTS, build_models, step_parts, whole_step

    sizes, first = context.sizes, VARIANTS[0].name
    images = torch.randn(sizes.step_batch, 3, sizes.image, sizes.image, device=context.device)
    images = images.contiguous(memory_format=torch.channels_last)
    models = build_models(VARIANTS, flagship(context), context.device, MASK_RATIO, sizes.vit)
    title = (
        f'batch {sizes.step_batch}, {sizes.image} px, mask ratio {MASK_RATIO}, {sizes.type_name}'
    )
    table = found.table(f'Whole step, {title}', (*COLUMNS, 'differs by'))
    with fast():
        wholes = {name: whole_step(m, images, sizes.dtype) for name, m in models.items()}
        timing = dict(warmup=sizes.unmeasured, device=context.device)
        results = measure(wholes, reference=first, rounds=sizes.rounds, **timing)
        for result, variant in zip(results, VARIANTS, strict=True):
            peak = peak_bytes(wholes[result.name], context.device)
            speed = sizes.step_batch / result.median
            low, high = (milliseconds(edge(result.seconds)) for edge in (min, max))
            table.rows.append(
                (
                    result.name,
                    milliseconds(result.median),
                    f'{low}-{high}',
                    f'{result.ratio:.3f}',
                    milliseconds(statistics.median(result.queued)),
                    '' if peak is None else f'{peak / MIB:.0f}',
                    f'{speed:.0f}',
                    variant.same,
                )
            )
            table.records.append(
                {**vars(result), 'peak_bytes': peak, 'images_per_second': speed}
                | {'same': variant.same}
            )
        parts = found.table(f'Parts of the step, each alone, ms; {title}', ('step', *PARTS))
        for name, model in models.items():
            if found.out_of_time(context, f'the parts of {name.strip()} and later ones'):
                break
            pieces = step_parts(model, images, sizes.dtype)
            timed = measure(pieces, reference='student', rounds=min(3, sizes.rounds), **timing)
            times = {result.name: result.median for result in timed}
            parts.rows.append((name, *(milliseconds(times[part]) for part in PARTS)))
            parts.records.append({'name': name, **times})
