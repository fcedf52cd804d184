"""What tools/benchmark.py prints: measured alternatives as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .encoder import encoder_steps
from .hgkd_step import VARIANTS, build_models, load_images, step_parts, whole_step
from .networks import build_network, mmpretrain_steps
from .table import MIB, Report, Settings
from .timing import measure, peak_bytes, saved_bytes

MMPRETRAIN = 'mmpretrain sparse'


def encoder_report(settings: Settings, engines: Sequence[str]) -> Report:
    """Training step and memory of one encoder: dense, by engine, and mmpretrain's own."""
    ours = encoder_steps(
        build_network(settings.network), engines=('dense', *engines), **settings.encoder()
    )
    steps, theirs = dict(ours.train), mmpretrain_steps(settings)
    saved = {name: saved_bytes(run, ours.known) for name, run in ours.forward.items()}
    if theirs is not None:
        steps[MMPRETRAIN] = theirs.train['dense']
        saved[MMPRETRAIN] = saved_bytes(theirs.forward['dense'], theirs.known)
    results = measure(steps, reference='dense', rounds=settings.rounds, device=settings.device)
    report = Report(
        f'{settings.title}, mask ratio {settings.mask_ratio}',
        ('training step', 'ms', 'ratio to dense', 'range', 'saved MiB', 'ratio', 'peak MiB'),
    )
    for result in results:
        kept = saved[result.name]
        peak = peak_bytes(steps[result.name], settings.device)
        cells = (
            f'{kept / MIB:.0f}',
            f'{kept / saved["dense"]:.2f}',
            '' if peak is None else f'{peak / MIB:.0f}',
        )
        report.add(result, cells, {'saved_bytes': kept, 'peak_bytes': peak})
    return report


def ratios_report(settings: Settings, ratios: Sequence[float]) -> Report:
    """Training step of one encoder on tiles, by mask ratio."""
    network, cells = build_network(settings.network), (settings.size // settings.cell) ** 2
    steps, saved, visible = {}, {}, {}
    for ratio in ratios:
        found = encoder_steps(network, engines=('dense', 'tiles'), **settings.encoder(ratio))
        for engine, name in (('dense', 'dense'), ('tiles', f'tiles, mask ratio {ratio}')):
            if name not in steps:
                steps[name] = found.train[engine]
                saved[name] = saved_bytes(found.forward[engine], found.known)
                visible[name] = 1.0 if engine == 'dense' else round(cells * (1 - ratio)) / cells
    results = measure(steps, reference='dense', rounds=settings.rounds, device=settings.device)
    report = Report(
        settings.title, ('training step', 'ms', 'ratio to dense', 'range', 'visible', 'saved')
    )
    for result in results:
        share, kept = visible[result.name], saved[result.name]
        record = {'visible': share, 'saved_bytes': kept}
        report.add(result, (f'{share:.3f}', f'{kept / saved["dense"]:.2f}'), record)
    return report


def step_report(settings: Settings, config: Path, vit: str | dict = 'base') -> Report:
    """The whole H-GKD step of a config, as today and as here, and its parts."""
    models = build_models(VARIANTS, config, settings.device, settings.mask_ratio, vit)
    images = torch.randn(settings.batch, 3, settings.size, settings.size, device=settings.device)
    images = images.contiguous(memory_format=torch.channels_last)
    dtype, first = settings.dtype, VARIANTS[0].name
    timing = dict(rounds=settings.rounds, warmup=1, device=settings.device)
    wholes = {name: whole_step(model, images, dtype) for name, model in models.items()}
    results = measure(wholes, reference=first, **timing)
    pieces = {
        (name, part): run
        for name, model in models.items()
        for part, run in step_parts(model, images, dtype).items()
    }
    pieces[first, 'data'] = load_images(config, settings.batch)
    timed = measure(pieces, reference=(first, 'student'), **timing)
    medians = {result.name: result.median for result in timed}
    parts = ('student', 'decoder', 'teacher', 'loss', 'data')
    report = Report(
        f'whole step of {config.stem}, batch {settings.batch}, {settings.size} px, {dtype}',
        ('training step', 'ms', f'ratio to {first}', 'range', *parts, 'differs by'),
    )
    for result, variant in zip(results, VARIANTS, strict=True):
        times = {p: medians.get((result.name, p), medians[first, 'data']) for p in parts}
        cells = (*(f'{1000 * t:.0f}' for t in times.values()), variant.same)
        report.add(result, cells, {'parts': times, 'same': variant.same})
    return report


def profile_report(settings: Settings, engine: str, steps: int = 3, most: int = 15) -> Report:
    """Which ops one training step of an encoder spends its time in."""
    found = encoder_steps(build_network(settings.network), engines=(engine,), **settings.encoder())
    run, cuda = found.train[engine], settings.device.startswith('cuda')
    for _ in range(3):
        run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            run()
        if cuda:
            torch.cuda.synchronize()

    def spent(event: object) -> float:
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        return time / 1000 / steps

    events = sorted(profile.key_averages(), key=spent, reverse=True)
    total = sum(map(spent, events))
    report = Report(
        f'{settings.title}, mask ratio {settings.mask_ratio}, {engine}: {total:.0f} ms',
        ('op', 'calls', 'ms', 'share'),
    )
    for event in events[:most]:
        calls, time = event.count // steps, spent(event)
        report.rows.append((event.key, str(calls), f'{time:.1f}', f'{time / total:.3f}'))
        report.records.append({'op': event.key, 'calls': calls, 'ms': time})
    return report
