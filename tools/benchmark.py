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

from hgkd_mm.benchmark import (
    NETWORKS,
    Report,
    Settings,
    encoder_report,
    keep_freed_memory,
    masking_report,
    methods_report,
    profile_report,
    ratios_report,
    step_report,
    versions,
)
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


def report(args: argparse.Namespace) -> Report:
    own = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    settings = Settings(**{**own, 'dtype': DTYPES[args.dtype]})
    if args.what == 'encoder':
        return encoder_report(settings, args.engines)
    if args.what == 'ratios':
        return ratios_report(settings, RATIOS)
    if args.what == 'step':
        return step_report(settings, args.config)
    if args.what == 'masking':
        return masking_report(settings, KEEP_RATIOS, args.vit)
    if args.what == 'methods':
        return methods_report(settings)
    return profile_report(settings, args.engine)


def main() -> None:
    args = parse_args()
    where = {'allocator keeps memory': str(keep_freed_memory())}
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    found = report(args)
    where = {**versions(args.device), **where}
    table = Table(*found.columns, title=found.title)
    for row in found.rows:
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print('  '.join(f'{k} {v}' for k, v in where.items()))
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items()}
        record = {'arguments': settings, 'versions': where, 'steps': found.records}
        args.json.write_text(json.dumps(record, indent=2))


if __name__ == '__main__':
    main()
