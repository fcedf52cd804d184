"""Time and memory of training steps on masked images, as ratios to a reference.

    python tools/benchmark.py                              # ResNet-50's encoder, batch 8, fp32
    python tools/benchmark.py --batch 16 --mask-ratio 0.75 --dtype bf16 --json out.json
    python tools/benchmark.py --network mobilenet_v2 --engines tiles masked_dense
    python tools/benchmark.py ratios --batch 16            # tiles from mask ratio 0 to 0.9
    python tools/benchmark.py step                         # teacher, student, decoder, loss, data

Alternatives run in turn in one process; tables show the median ratio and its range.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hgkd_mm.benchmark import (
    NETWORKS,
    VARIANTS,
    EncoderSteps,
    build_mmpretrain_sparse,
    build_models,
    build_network,
    encoder_steps,
    keep_freed_memory,
    load_images,
    measure,
    saved_bytes,
    step_parts,
    versions,
    whole_step,
    with_sparse_helper,
)
from hgkd_mm.sparse import CellMask

CONFIGS = Path(__file__).parent.parent / 'configs'
STEP_CONFIG = CONFIGS / 'pretrain/hgkd_r50_mae.py'
RATIOS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.75, 0.9)
MMPRETRAIN = 'mmpretrain sparse'
MIB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', nargs='?', default='encoder', choices=('encoder', 'ratios', 'step'))
    parser.add_argument('--network', default='resnet50', choices=tuple(NETWORKS))
    parser.add_argument('--engines', nargs='+', default=['tiles', 'masked_dense'])
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=224, help='image side, pixels')
    parser.add_argument('--cell', type=int, default=32, help='mask cell side, pixels')
    parser.add_argument('--mask-ratio', type=float, default=0.6)
    parser.add_argument('--dtype', choices=('fp32', 'bf16'), default='fp32')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads')
    parser.add_argument('--rounds', type=int, default=9, help='measured rounds')
    parser.add_argument('--json', type=Path, help='also write the figures here')
    return parser.parse_args()


def shared_settings(args: argparse.Namespace) -> dict:
    """Arguments of ``encoder_steps`` that all alternatives share."""
    return dict(
        batch=args.batch,
        size=args.size,
        cell=args.cell,
        dtype=torch_dtype(args),
        device=args.device,
    )


def torch_dtype(args: argparse.Namespace) -> torch.dtype:
    return torch.bfloat16 if args.dtype == 'bf16' else torch.float32


def mmpretrain_steps(args: argparse.Namespace) -> EncoderSteps | None:
    """mmpretrain's own network for masked images, if it has one of this kind."""
    network = build_mmpretrain_sparse(args.network)
    if network is None:
        return None
    draw = partial(
        CellMask.random,
        batch=args.batch,
        grid=(args.size // args.cell,) * 2,
        mask_ratio=args.mask_ratio,
        device=args.device,
    )
    found = encoder_steps(
        network, engines=('dense',), mask_ratio=args.mask_ratio, **shared_settings(args)
    )
    found.train['dense'] = with_sparse_helper(found.train['dense'], draw)
    found.forward['dense'] = with_sparse_helper(found.forward['dense'], draw)
    return found


def encoder(args: argparse.Namespace) -> tuple[Table, list[dict]]:
    """Training step and saved bytes of one encoder under each engine."""
    ours = encoder_steps(
        build_network(args.network),
        engines=('dense', *args.engines),
        mask_ratio=args.mask_ratio,
        **shared_settings(args),
    )
    steps = dict(ours.train)
    saved = {name: saved_bytes(run, ours.known) for name, run in ours.forward.items()}
    theirs = mmpretrain_steps(args)
    if theirs is not None:
        steps[MMPRETRAIN] = theirs.train['dense']
        saved[MMPRETRAIN] = saved_bytes(theirs.forward['dense'], theirs.known)
    results = measure(steps, reference='dense', rounds=args.rounds, device=args.device)
    table = new_table(args, f'mask ratio {args.mask_ratio}', ('saved MiB', 'ratio'))
    records = []
    for r in results:
        share = saved[r.name] / saved['dense']
        table.add_row(*timing_cells(r), f'{saved[r.name] / MIB:.0f}', f'{share:.2f}')
        records.append({**vars(r), 'saved_bytes': saved[r.name]})
    return table, records


def ratios(args: argparse.Namespace) -> tuple[Table, list[dict]]:
    """Training step of one encoder from everything visible to a tenth."""
    network, steps, saved = build_network(args.network), {}, {}
    visible = {'dense': 1.0}
    for ratio in RATIOS:
        found = encoder_steps(
            network, engines=('dense', 'tiles'), mask_ratio=ratio, **shared_settings(args)
        )
        name = f'tiles, mask ratio {ratio}'
        cells = (args.size // args.cell) ** 2
        visible[name] = round(cells * (1 - ratio)) / cells
        steps.setdefault('dense', found.train['dense'])
        steps[name] = found.train['tiles']
        saved[name] = saved_bytes(found.forward['tiles'], found.known)
        saved.setdefault('dense', saved_bytes(found.forward['dense'], found.known))
    results = measure(steps, reference='dense', rounds=args.rounds, device=args.device)
    table = new_table(args, 'by mask ratio', ('visible', 'saved'))
    records = []
    for r in results:
        share = saved[r.name] / saved['dense']
        table.add_row(*timing_cells(r), f'{visible[r.name]:.3f}', f'{share:.2f}')
        records.append({**vars(r), 'visible': visible[r.name], 'saved_bytes': saved[r.name]})
    return table, records


def step(args: argparse.Namespace) -> tuple[Table, list[dict]]:
    """The whole H-GKD step with a ViT-B/16 teacher, as today and as here, and its parts."""
    models = build_models(VARIANTS, STEP_CONFIG, args.device, args.mask_ratio)
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    images = images.contiguous(memory_format=torch.channels_last)
    dtype = torch_dtype(args)
    wholes = {name: whole_step(model, images, dtype) for name, model in models.items()}
    first = VARIANTS[0].name
    results = measure(wholes, reference=first, rounds=args.rounds, warmup=1, device=args.device)
    pieces = {
        (name, part): run
        for name, model in models.items()
        for part, run in step_parts(model, images, dtype).items()
    }
    pieces[first, 'data'] = load_images(STEP_CONFIG, args.batch)
    timed = measure(
        pieces, reference=(first, 'student'), rounds=args.rounds, warmup=1, device=args.device
    )
    parts = {r.name: r.median for r in timed}
    columns = ('student', 'decoder', 'teacher', 'loss', 'data')
    table = new_table(args, 'whole H-GKD step', (*columns, 'what differs'), first)
    records = []
    for r, variant in zip(results, VARIANTS, strict=True):
        times = {c: parts.get((r.name, c), parts[first, 'data']) for c in columns}
        cells = (f'{1000 * times[c]:.0f}' for c in columns)
        table.add_row(*timing_cells(r), *cells, variant.same)
        records.append({**vars(r), 'parts': times, 'same': variant.same})
    return table, records


def new_table(
    args: argparse.Namespace, title: str, columns: tuple[str, ...], reference: str = 'dense'
) -> Table:
    table = Table(
        title=f'{args.network}, batch {args.batch}, {args.size} px, {args.dtype}, {title}'
    )
    for column in ('training step', 'ms', f'ratio to {reference}', 'range', *columns):
        table.add_column(column, justify='left' if column == 'training step' else 'right')
    return table


def timing_cells(r: object) -> tuple[str, str, str, str]:
    return r.name, f'{1000 * r.median:.0f}', f'{r.ratio:.3f}', f'{r.low:.3f}-{r.high:.3f}'


def main() -> None:
    args = parse_args()
    kept = keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    run = {'encoder': encoder, 'ratios': ratios, 'step': step}[args.what]
    table, records = run(args)
    where = {**versions(args.device), 'allocator keeps memory': str(kept)}
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print('  '.join(f'{k} {v}' for k, v in where.items()))
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items()}
        args.json.write_text(
            json.dumps({'arguments': settings, 'versions': where, 'steps': records}, indent=2)
        )


if __name__ == '__main__':
    main()
