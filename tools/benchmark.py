"""Time and memory of training steps on masked images, as ratios to a reference.

    python tools/benchmark.py encoder                       # ResNet-50's encoder, batch 8, fp32
    python tools/benchmark.py encoder --batch 16 --mask-ratio 0.6 0.75 --dtype bf16 --json out.json
    python tools/benchmark.py encoder --network mobilenetv2_100 --engines tiles masked_dense
    python tools/benchmark.py step                          # teacher, student, decoder, loss
    python tools/benchmark.py profile                       # the ops that take most of a step
    python tools/benchmark.py methods --batch 16            # every way to convolve, layer by layer

Alternatives run in turn in one process; tables show the median ratio and its range.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from hgkd_mm.benchmark import Settings, Stage, keep_freed_memory, versions
from hgkd_mm.benchmark.encoder import SPARK, SPARK_NETWORKS, measure_encoder
from hgkd_mm.benchmark.methods import measure_methods
from hgkd_mm.benchmark.profile import measure_kernels
from hgkd_mm.benchmark.step import measure_step
from hgkd_mm.sparse import ENGINE_NAMES

FLAGSHIP = Path(__file__).parent.parent / 'configs/pretrain/hgkd_r50_mae.py'
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='what', required=True)
    for what in ('encoder', 'step', 'profile', 'methods'):
        add = commands.add_parser(what).add_argument
        add('--batch', type=int, default=8)
        add('--size', type=int, default=224, help='image side, pixels')
        add('--dtype', choices=tuple(DTYPES), default='fp32')
        add('--device', default='cpu')
        add('--threads', type=int, default=2, help='CPU threads')
        add('--rounds', type=int, default=9, help='measured rounds')
        add('--json', type=Path, help='also write the figures here')
        add('--mask-ratio', type=float, nargs='+' if what == 'encoder' else None, default=0.6)
        if what == 'step':
            add('--config', type=Path, default=FLAGSHIP)
        else:
            add('--cell', type=int, default=32, help='mask cell side, pixels')
        if what in ('encoder', 'profile'):
            add('--network', default='resnet50', help="timm's name")
        if what == 'encoder':
            both = ['tiles', 'masked_dense']
            add('--engines', nargs='+', default=both, choices=ENGINE_NAMES)
        if what == 'profile':
            add('--engine', default='tiles', choices=('dense', *ENGINE_NAMES))
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Stage:
    own = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    settings = Settings(**{**own, 'dtype': DTYPES[args.dtype]})
    stage = Stage(args.what)
    if args.what == 'encoder':
        table = stage.table(f'Forward and backward of the encoder, {args.size} px')
        spark = [SPARK] * (args.network in SPARK_NETWORKS)
        ratios = args.mask_ratio if isinstance(args.mask_ratio, list) else [args.mask_ratio]
        for ratio in ratios:
            kinds = ['dense', *args.engines, *spark]
            measure_encoder(table, replace(settings, mask_ratio=ratio), kinds)
    elif args.what == 'step':
        measure_step(stage, settings, args.config)
    elif args.what == 'methods':
        measure_methods(stage, settings)
    else:
        measure_kernels(stage, settings, (args.engine,), steps=3)
    return stage


def main() -> None:
    args = parse_args()
    where = {'allocator keeps memory': str(keep_freed_memory())}
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stage = measure(args)
    stage.status, stage.seconds = 'ran', time.monotonic() - stage.started
    where = {**versions(args.device), **where}
    print(stage.markdown())
    print('  '.join(f'{k} {v}' for k, v in where.items()))
    if args.json:
        arguments = {k: str(v) for k, v in vars(args).items()}
        record = {'arguments': arguments, 'versions': where, **stage.record()}
        args.json.write_text(json.dumps(record, indent=2))


if __name__ == '__main__':
    main()
