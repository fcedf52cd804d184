"""What tools/benchmark.py prints: measured alternatives as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from hgkd_mm.sparse import CellMask

from .encoder import EncoderSteps, encoder_steps
from .networks import build_mmpretrain_sparse, build_network, with_sparse_helper
from .timing import Measurement, measure, peak_bytes, saved_bytes
from .whole_step import VARIANTS, build_models, load_images, step_parts, whole_step

MMPRETRAIN = 'mmpretrain sparse'
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        network: a name of ``NETWORKS``.
        batch: images a step.
        size: image side, pixels.
        cell: mask cell side, pixels.
        mask_ratio: hidden fraction.
        dtype: float32, or bfloat16 for autocast.
        device: 'cpu' or 'cuda'.
        rounds: measured rounds.
    """

    network: str = 'resnet50'
    batch: int = 8
    size: int = 224
    cell: int = 32
    mask_ratio: float = 0.6
    dtype: torch.dtype = torch.float32
    device: str = 'cpu'
    rounds: int = 9

    def encoder(self, mask_ratio: float | None = None) -> dict:
        """Arguments of ``encoder_steps``."""
        return dict(
            batch=self.batch,
            size=self.size,
            cell=self.cell,
            mask_ratio=self.mask_ratio if mask_ratio is None else mask_ratio,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def title(self) -> str:
        """Of a table about one encoder."""
        dtype = str(self.dtype).removeprefix('torch.')
        return f'{self.network}, batch {self.batch}, {self.size} px, {dtype}'


@dataclass
class Report:
    """A table, and the same as records for JSON."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)

    def add(self, result: Measurement, cells: Sequence[str], record: dict) -> None:
        """One alternative: its times, then what else the columns tell of it."""
        times = f'{1000 * result.median:.0f}', f'{result.ratio:.3f}'
        spread = f'{result.low:.3f}-{result.high:.3f}'
        self.rows.append((result.name, *times, spread, *cells))
        self.records.append({**vars(result), **record})


def encoder_report(settings: Settings, engines: Sequence[str]) -> Report:
    """Training step and memory of one encoder: dense, by engine, and mmpretrain's own."""
    ours = encoder_steps(
        build_network(settings.network), engines=('dense', *engines), **settings.encoder()
    )
    steps, theirs = dict(ours.train), _mmpretrain_steps(settings)
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


def _mmpretrain_steps(settings: Settings) -> EncoderSteps | None:
    network = build_mmpretrain_sparse(settings.network)
    if network is None:
        return None
    draw = partial(
        CellMask.random,
        batch=settings.batch,
        grid=(settings.size // settings.cell,) * 2,
        mask_ratio=settings.mask_ratio,
        device=settings.device,
    )
    found = encoder_steps(network, engines=('dense',), **settings.encoder())
    found.train['dense'] = with_sparse_helper(found.train['dense'], draw)
    found.forward['dense'] = with_sparse_helper(found.forward['dense'], draw)
    return found


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
