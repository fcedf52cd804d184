"""Time and memory of training steps on masked images, as ratios to a reference.

    python tools/benchmark.py encoder                       # ResNet-50's encoder, batch 8, fp32
    python tools/benchmark.py encoder --batch 16 --mask-ratio 0.75 --dtype bf16 --json out.json
    python tools/benchmark.py encoder --network mobilenet_v2 --engines tiles masked_dense
    python tools/benchmark.py ratios --batch 16             # tiles from mask ratio 0 to 0.9
    python tools/benchmark.py step                          # teacher, student, decoder, loss, data
    python tools/benchmark.py masking --batch 16            # Hybrid Distill's ViT-B, by tokens kept
    python tools/benchmark.py profile                       # the ops that take most of a step
    python tools/benchmark.py methods --batch 16            # every way to convolve, layer by layer

Alternatives run in turn in one process; tables show the median ratio and its range.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hgkd_mm.benchmark import Settings, Stage, keep_freed_memory, versions
from hgkd_mm.benchmark.encoder import NETWORKS, build_network, measure_encoder, measure_ratios
from hgkd_mm.benchmark.masking import measure_masking
from hgkd_mm.benchmark.methods import measure_methods
from hgkd_mm.benchmark.profile import measure_kernels
from hgkd_mm.benchmark.step import measure_loading, measure_step
from hgkd_mm.sparse import ENGINE_NAMES

FLAGSHIP = Path(__file__).parent.parent / 'configs/pretrain/hgkd_r50_mae.py'
RATIOS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.75, 0.9)
KEEP_RATIOS = (0.9, 0.8, 0.7, 0.5)
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='what', required=True)
    for what in ('encoder', 'ratios', 'step', 'masking', 'profile', 'methods'):
        command = commands.add_parser(what)
        command.add_argument('--batch', type=int, default=8)
        command.add_argument('--size', type=int, default=224, help='image side, pixels')
        command.add_argument('--dtype', choices=tuple(DTYPES), default='fp32')
        command.add_argument('--device', default='cpu')
        command.add_argument('--threads', type=int, default=2, help='CPU threads')
        command.add_argument('--rounds', type=int, default=9, help='measured rounds')
        command.add_argument('--json', type=Path, help='also write the figures here')
        if what not in ('ratios', 'masking'):
            command.add_argument('--mask-ratio', type=float, default=0.6)
        if what == 'masking':
            command.add_argument('--vit', default='base', help="size, in mmpretrain's words")
        elif what == 'step':
            command.add_argument('--config', type=Path, default=FLAGSHIP)
        else:
            command.add_argument('--cell', type=int, default=32, help='mask cell side, pixels')
        if what not in ('step', 'masking', 'methods'):
            command.add_argument('--network', default='resnet50', choices=tuple(NETWORKS))
        if what == 'encoder':
            both = ['tiles', 'masked_dense']
            command.add_argument('--engines', nargs='+', default=both, choices=ENGINE_NAMES)
        if what == 'profile':
            command.add_argument('--engine', default='tiles', choices=('dense', *ENGINE_NAMES))
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Stage:
    own = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    settings = Settings(**{**own, 'dtype': DTYPES[args.dtype]})
    stage = Stage(args.what)
    if args.what == 'encoder':
        measure_encoder(stage, settings, args.engines)
    elif args.what == 'ratios':
        measure_ratios(stage, settings, RATIOS)
    elif args.what == 'step':
        measure_step(stage, settings, args.config)
        measure_loading(stage, settings, args.config)
    elif args.what == 'masking':
        measure_masking(stage, settings, KEEP_RATIOS, args.vit)
    elif args.what == 'methods':
        measure_methods(stage, settings)
    else:
        network = build_network(settings.network)
        measure_kernels(stage, settings, network, (args.engine,), steps=3)
    return stage


def main() -> None:
    args = parse_args()
    where = {'allocator keeps memory': str(keep_freed_memory())}
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stage = measure(args)
    where = {**versions(args.device), **where}
    console = Console(width=None if Console().is_terminal else 160)
    for found in stage.tables:
        table = Table(*found.columns, title=found.title)
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
    for note in stage.notes:
        console.print(note)
    console.print('  '.join(f'{k} {v}' for k, v in where.items()))
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items()}
        steps = [record for table in stage.tables for record in table.records]
        record = {'arguments': settings, 'versions': where, 'steps': steps}
        args.json.write_text(json.dumps(record, indent=2))


if __name__ == '__main__':
    main()
