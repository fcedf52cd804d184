"""Measures a network's attention, layer by layer, and its features.

    python tools/analyze_attention.py CONFIG CHECKPOINT --images FOLDER --out DIR
    python tools/analyze_attention.py CONFIG --teacher NAME --images FOLDER --out DIR

For a vision transformer: attention distance and NMI of each head, attention maps of chosen
queries. For any network: effective rank, class separability and other measures of its features.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from hgkd_mm.inspect import analyze, figures_table
from hgkd_mm.utils.launch import add_config_flag, add_inspection_flags, load_config


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config of the run')
    add('checkpoint', nargs='?', help='its weights, or those of its backbone')
    add('--teacher', metavar='NAME', help='a teacher of the config, with its weights, instead')
    add('--images', metavar='FOLDER', help="images, in class subfolders or not; the config's data")
    add('--queries', nargs='+', metavar='ROW,COLUMN', help='tokens to draw, or cls; a diagonal')
    add('--layers', nargs='+', type=int, help='blocks to draw, from 0 or -1; first, middle, last')
    add('--shown', type=int, default=4, help='how many images are drawn (4)')
    add('--batch-size', type=int, default=16, help='images at once (16)')
    add_inspection_flags(parser, out='folder for analysis.json and the pictures', num=256)
    add_config_flag(parser, example='model.teachers.mim.checkpoint=FILE')
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Analyzes the network and prints the figures."""
    args = parse_args(arguments)
    try:
        made = analyze(
            load_config(args.config, args.cfg_options),
            out=args.out,
            checkpoint=args.checkpoint,
            teacher=args.teacher,
            folder=args.images,
            queries=args.queries,
            layers=args.layers,
            count=args.num,
            shown=args.shown,
            size=None if args.size is None else (args.size, args.size),
            seed=args.seed,
            batch_size=args.batch_size,
            device=args.device,
            trust_checkpoint=args.trust_checkpoint,
        )
    except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
        sys.exit(f'tools/analyze_attention.py: {error}')
    print('\n'.join(made.notes))
    print(figures_table(made.figures))
    print(f'Written: {", ".join(map(str, made.files))}')


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=UserWarning)
    main()
