"""The training step of the encoder: time, host time, memory, images a second."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import timm
import torch

from ..encoder import encoder_steps
from ..networks import mmpretrain_steps
from ..table import MIB, Report, Settings, milliseconds
from ..timing import Measurement, measure, peak_bytes
from .context import Context, Findings, LeftOutError
from .openmmlab import import_openmmlab
from .precision import fast, free_memory

MASK_RATIOS = (0.6, 0.75)
# The last four maps, as a decoder reads them.
STAGES = (-4, -3, -2, -1)
MMPRETRAIN, COMPILED = 'mmpretrain sparse', 'dense, torch.compile'
COLUMNS = (
    'network',
    'batch',
    'mask ratio',
    'type',
    'step',
    'ms',
    'range',
    'ratio to dense',
    'ms to queue',
    'peak MiB',
    'images/s',
)
# Compiling ResNet-50 and its gradient takes about so long; the other rows leave it the time.
COMPILE_SECONDS = 30.0

Steps = dict[str, Callable[[], None]]


def encoder(context: Context, found: Findings) -> None:
    """Dense, what there was for masked images before, and tiles; a new mask each step."""
    sizes = context.sizes
    first = next(iter(sizes.encoder))
    table = found.table(f'Forward and backward of the encoder, {sizes.image} px', COLUMNS)
    reference = _reference(found)
    half, full = sizes.dtype, torch.float32
    cases = [
        (first, sizes.batch, half),
        (first, sizes.batch, full),
        (first, sizes.small_batch, half),
    ]
    # The last one in bfloat16 alone.
    others = [(name, sizes.batch) for name in sizes.encoder if name != first]
    cases += [(*case, half) for case in others] + [(*case, full) for case in others[:-1]]
    with fast():
        for (name, batch, dtype), ratio in product(dict.fromkeys(cases), MASK_RATIOS):
            settings = context.settings(network=name, batch=batch, dtype=dtype, mask_ratio=ratio)
            case = f'{name}, batch {batch}, {type_name(settings)}, mask ratio {ratio}'
            if found.out_of_time(context, case, kept=COMPILE_SECONDS * sizes.compiled):
                continue
            try:
                # What masks a dense map takes nearly as long whatever is hidden.
                _case(context, table, settings, reference if ratio == MASK_RATIOS[0] else None)
            except torch.cuda.OutOfMemoryError as error:
                found.notes.append(f'Not measured for want of memory: {case} ({error}).')
            except Exception as error:  # one leaves the others
                found.broken.append(f'{case}: {type(error).__name__}: {str(error)[:300]}')
            free_memory()
        _compiled(context, found, table, first)


def _case(context: Context, table: Report, settings: Settings, reference: str | None) -> None:
    steps = _steps(settings, reference, context.sizes.encoder[settings.network])
    for result in _measured(context, steps):
        add_row(table, settings, result, steps[result.name])


def _measured(context: Context, steps: Steps) -> list[Measurement]:
    return measure(
        steps,
        reference='dense',
        rounds=context.sizes.rounds,
        warmup=context.sizes.unmeasured,
        device=context.device,
    )


def _reference(found: Findings) -> str:
    """'mmpretrain sparse' where it can be had, else the engine that computes alike."""
    try:
        import_openmmlab()
    except LeftOutError as error:
        found.notes.append(f'masked_dense stands in for mmpretrain sparse: {error}')
        return 'masked_dense'
    return MMPRETRAIN


def _steps(settings: Settings, reference: str | None, name: str) -> Steps:
    """Training steps by name.

    Args:
        settings: ``network`` is timm's name.
        reference: 'mmpretrain sparse', an engine, or None.
        name: of the same network in ``NETWORKS``.
    """
    network = timm.create_model(settings.network, features_only=True, out_indices=STAGES)
    theirs = mmpretrain_steps(replace(settings, network=name)) if reference == MMPRETRAIN else None
    # mmpretrain has no MobileNetV2 of this kind.
    engine = ('masked_dense',) if reference and theirs is None else ()
    engines = ('dense', *engine, 'tiles')
    steps = dict(encoder_steps(network, engines=engines, **settings.encoder()).train)
    if theirs is not None:
        steps[MMPRETRAIN] = theirs.train['dense']
    return steps


def add_row(
    table: Report, settings: Settings, result: Measurement, step: Callable[[], None]
) -> None:
    """One alternative of one case, with the peak memory of one more step."""
    peak = peak_bytes(step, settings.device)
    speed = settings.batch / result.median
    queued = statistics.median(result.queued)
    low, high = (milliseconds(edge(result.seconds)) for edge in (min, max))
    case = {
        'network': settings.network,
        'batch': settings.batch,
        'mask_ratio': settings.mask_ratio,
        'type': type_name(settings),
    }
    table.rows.append(
        (
            *map(str, case.values()),
            result.name,
            milliseconds(result.median),
            f'{low}-{high}',
            f'{result.ratio:.3f}',
            milliseconds(queued),
            '' if peak is None else f'{peak / MIB:.0f}',
            f'{speed:.0f}',
        )
    )
    table.records.append({**case, **vars(result), 'peak_bytes': peak, 'images_per_second': speed})


def type_name(settings: Settings) -> str:
    """What the products are computed in: float32 is TF32 on a GPU here."""
    if settings.dtype == torch.float32 and settings.device.startswith('cuda'):
        return 'TF32'
    return str(settings.dtype).removeprefix('torch.')


def _compiled(context: Context, found: Findings, table: Report, name: str) -> None:
    """The dense step of one network under torch.compile, beside it without."""
    if not context.sizes.compiled or context.left < COMPILE_SECONDS:
        why = 'it is left out with --small' if not context.sizes.compiled else 'too little time'
        found.notes.append(f'torch.compile was not measured: {why}.')
        return
    settings = context.settings(network=name)
    network = timm.create_model(name, features_only=True, out_indices=STAGES)
    dense = dict(engines=('dense',), **settings.encoder())
    steps = {
        'dense': encoder_steps(network, **dense).train['dense'],
        COMPILED: encoder_steps(torch.compile(network), **dense).train['dense'],
    }
    try:
        steps[COMPILED]()
    except Exception as error:  # it needs a C compiler, among others
        found.notes.append(f'torch.compile failed: {type(error).__name__}: {str(error)[:300]}')
        return
    for result in _measured(context, steps):
        if result.name == COMPILED:
            add_row(table, settings, result, steps[COMPILED])
