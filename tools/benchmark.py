"""Time and memory of one encoder training step, as ratios to the dense network.

    python tools/benchmark.py                                  # ResNet-50, batch 8, fp32
    python tools/benchmark.py --batch 16 --mask-ratio 0.75 --dtype bf16 --json out.json

Alternatives run in turn in one process; the table shows the median ratio and its range.
"""

import argparse
import json
from pathlib import Path

import torch
from mmengine.utils import import_modules_from_strings
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.table import Table

from hgkd_mm.benchmark import EncoderSteps, encoder_steps, measure, saved_bytes, versions
from hgkd_mm.sparse import CellMask


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depth', type=int, default=50, help='depth of the ResNet')
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


def mmpretrain_steps(args: argparse.Namespace, shared: dict) -> EncoderSteps:
    """mmpretrain's own SparseResNet, which masks after every dense op."""
    network = MODELS.build(
        dict(
            type='SparseResNet',
            depth=args.depth,
            out_indices=(0, 1, 2, 3),
            norm_cfg=dict(type='mmpretrain.SparseBatchNorm2d'),
        )
    )
    from mmpretrain.models.selfsup.spark import SparseHelper

    def with_mask(run):
        def call():
            mask = CellMask.random(
                batch=args.batch,
                grid=(args.size // args.cell,) * 2,
                mask_ratio=args.mask_ratio,
                device=args.device,
            )
            SparseHelper._cur_active = mask.visible[:, None]
            return run()

        return call

    found = encoder_steps(network, engines=('dense',), **shared)
    found.train['dense'] = with_mask(found.train['dense'])
    found.forward['dense'] = with_mask(found.forward['dense'])
    return found


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    import_modules_from_strings(['mmpretrain.models'])
    network = MODELS.build(dict(type='ResNet', depth=args.depth, out_indices=(0, 1, 2, 3)))
    shared = dict(
        batch=args.batch,
        size=args.size,
        cell=args.cell,
        mask_ratio=args.mask_ratio,
        dtype=torch.bfloat16 if args.dtype == 'bf16' else torch.float32,
        device=args.device,
    )
    ours, theirs = encoder_steps(network, **shared), mmpretrain_steps(args, shared)
    name = 'mmpretrain SparseResNet'
    steps = {**ours.train, name: theirs.train['dense']}
    memory = {key: saved_bytes(run, ours.known) for key, run in ours.forward.items()}
    memory[name] = saved_bytes(theirs.forward['dense'], theirs.known)
    results = measure(steps, reference='dense', rounds=args.rounds, device=args.device)

    title = f'ResNet-{args.depth}, batch {args.batch}, {args.size} px, ratio {args.mask_ratio}'
    table = Table(title=f'{title}, {args.dtype}')
    for column in ('training step', 'ms', 'ratio to dense', 'range', 'saved MiB', 'ratio'):
        table.add_column(column, justify='left' if column == 'training step' else 'right')
    for r in results:
        saved = memory[r.name]
        table.add_row(
            r.name,
            f'{1000 * r.median:.0f}',
            f'{r.ratio:.3f}',
            f'{r.low:.3f}-{r.high:.3f}',
            f'{saved / 2**20:.0f}',
            f'{saved / memory["dense"]:.2f}',
        )
    console = Console()
    console.print(table)
    console.print('  '.join(f'{k} {v}' for k, v in versions(args.device).items()))
    if args.json:
        record = {
            'arguments': {k: str(v) for k, v in vars(args).items()},
            'versions': versions(args.device),
            'steps': [{**vars(r), 'saved_bytes': memory[r.name]} for r in results],
        }
        args.json.write_text(json.dumps(record, indent=2))


if __name__ == '__main__':
    main()
