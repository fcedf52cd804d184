"""What one step launches, what the kernels cost, and where the host waits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from torch.autograd import DeviceType

from ..encoder import encoder_steps
from ..table import Report, milliseconds
from ..timing import measure
from .context import Context, Findings, LeftOutError
from .openmmlab import flagship, import_openmmlab
from .precision import fast, free_memory
from .synchronisations import counted

MOST = 10
# Not cuDNN's convolutions that have 'indexed' in their names.
MOVING = re.compile(r'gather|scatter|index(?!ed)', re.IGNORECASE)
STEPS = ('tiles', 'dense')


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step, or one op on a CPU.

    Attributes:
        name: in full.
        calls: in the step.
        ms: of all calls.
    """

    name: str
    calls: int
    ms: float


def profile(context: Context, found: Findings) -> None:
    """One step of the first encoder by tiles, the dense one beside it; then the waits."""
    network = timm.create_model(next(iter(context.sizes.encoder)), features_only=True)
    settings = context.settings(network=next(iter(context.sizes.encoder)))
    with fast():
        steps = encoder_steps(network, engines=STEPS, **settings.encoder()).train
        results = measure(steps, reference='dense', rounds=3, device=context.device)
        kernels = {name: _kernels(step, context.cuda) for name, step in steps.items()}
        _kernel_tables(found, settings.title, kernels, {r.name: r for r in results})
        if not context.cuda:
            found.notes.append('A CPU is not waited for: synchronisations were not counted.')
            return
        waits = found.table('Where the host waits for the device', ('step', 'line', 'waits'))
        with counted() as lines:
            steps['tiles']()
        _add_waits(waits, 'encoder, tiles', lines)
        if lines:
            found.broken.append(
                f'The encoder step waits for the device {sum(lines.values())} times.'
            )
        del steps, network
        free_memory()
        _whole_step(context, found, waits)


def _kernel_tables(found: Findings, title: str, kernels: dict, results: dict) -> None:
    table = found.table(
        f'{title}, one step',
        ('step', 'kernels', 'ms of all', 'ms', 'ms to queue', 'gather, index, scatter'),
    )
    for name, own in kernels.items():
        total = sum(kernel.ms for kernel in own)
        moved = sum(kernel.ms for kernel in own if MOVING.search(kernel.name))
        count, share = sum(kernel.calls for kernel in own), moved / total
        queued = statistics.median(results[name].queued)
        shown = (total / 1000, results[name].median, queued)
        table.rows.append((name, str(count), *map(milliseconds, shown), f'{share:.3f}'))
        table.records.append(
            {'step': name, 'kernels': count, 'kernel_ms': total, 'share_moving': share}
            | {'seconds': results[name].seconds, 'queued': results[name].queued}
        )
    for name, own in kernels.items():
        costly = found.table(
            f'{title}, the {MOST} costly kernels of {name}', ('kernel', 'calls', 'ms')
        )
        for kernel in own[:MOST]:
            costly.rows.append(
                (short_name(kernel.name), str(kernel.calls), milliseconds(kernel.ms / 1000))
            )
            costly.records.append(vars(kernel))


def _kernels(step: Callable[[], None], cuda: bool) -> list[Kernel]:
    """Those of one step, the costly ones first; on a CPU its ops."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiled:
        step()
        if cuda:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    own = [event for event in profiled.key_averages() if event.device_type == kind]
    found = [
        Kernel(e.key, e.count, (e.self_device_time_total if cuda else e.self_cpu_time_total) / 1000)
        for e in own
    ]
    return sorted(found, key=lambda kernel: kernel.ms, reverse=True)


def short_name(name: str, most: int = 72) -> str:
    """A kernel's name without namespaces, 'void' and the end of what is long."""
    name = re.sub(r'\(anonymous namespace\)::|\b[A-Za-z_]\w*::|^void ', '', name)
    return name if len(name) <= most else f'{name[: most - 1]}…'


def _whole_step(context: Context, found: Findings, waits: Report) -> None:
    """Waits of the flagship's step, with a teacher that sees all and one that sees the visible."""
    if found.out_of_time(context, 'waits of the whole step'):
        return
    try:
        import_openmmlab()
    except LeftOutError as error:
        found.notes.append(f'Waits of the whole step were not counted: {error}')
        return
    from ..hgkd_step import VARIANTS, build_models, whole_step

    variants = tuple(
        v for v in VARIANTS if v.name.strip() in ('tiles, out_stride 16', 'and visible view')
    )
    size, batch = context.sizes.image, context.sizes.step_batch
    images = torch.randn(batch, 3, size, size, device=context.device)
    models = build_models(variants, flagship(context), context.device, 0.6, context.sizes.vit)
    for name, model in models.items():
        run = whole_step(model, images, context.sizes.dtype)
        run()
        with counted() as lines:
            run()
        _add_waits(waits, name, lines)
    del models, model, run
    free_memory()


def _add_waits(table: Report, step: str, lines: dict[str, int]) -> None:
    for line, count in lines.items():
        table.rows.append((step, line, str(count)))
    if not lines:
        table.rows.append((step, 'none', '0'))
    table.records.append({'step': step, 'waits': dict(lines)})
