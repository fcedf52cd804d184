"""Writes the backbone of a pre-training checkpoint for another library.

    python tools/export_backbone.py work_dirs/r50/epoch_300.pth --to timm r50.safetensors

Every weight has to fit the library's network, or nothing is written. See docs/export.md.
"""

from __future__ import annotations

import argparse
import logging
import sys

from hgkd_mm.export import TARGETS, Exported, export_backbone, read_pretrained
from hgkd_mm.utils.launch import add_trust_flag
from hgkd_mm.weights.fit import counted


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('checkpoint', metavar='CKPT', help='checkpoint of a training run')
    parser.add_argument('out', metavar='OUT', help='.pth, .safetensors (timm, torchvision), .onnx')
    parser.add_argument('--to', choices=TARGETS, required=True, help='the library')
    parser.add_argument(
        '--size',
        type=pixels,
        help='224, or 256x192 (height x width), for ONNX files whose size has to be fixed; '
        "default: the backbone's img_size, or 224",
    )
    parser.add_argument('--config', help='config file of the run; default: from the checkpoint')
    add_trust_flag(parser)
    return parser.parse_args(arguments)


def pixels(text: str) -> tuple[int, int]:
    """Height and width."""
    height, _, width = text.partition('x')
    return int(height), int(width or height)


def report(exported: Exported) -> str:
    """What was written, for people."""
    converted, size = exported.converted, exported.path.stat().st_size / 1e6
    lines = [
        f'{exported.metadata["source"]} -> {converted.made_by}',
        f'  {converted.fit.counts()}; {counted(converted.left_out, "left out")}',
    ]
    lines += [f'  {key}: {value}' for key, value in exported.metadata.items() if key != 'config']
    return '\n'.join([*lines, f'Wrote {exported.path} ({size:.1f} MB); docs/export.md loads it.'])


def main() -> None:
    """Reads, converts, writes, reports."""
    args = parse_args()
    logging.disable(logging.INFO)
    try:
        backbone = read_pretrained(
            args.checkpoint, config=args.config, trust_checkpoint=args.trust_checkpoint
        )
        exported = export_backbone(backbone, target=args.to, out=args.out, size=args.size)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        sys.exit(f'tools/export_backbone.py: {error}')
    print(report(exported))


if __name__ == '__main__':
    main()
