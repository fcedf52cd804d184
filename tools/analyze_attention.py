"""Measures a network's attention, layer by layer, and its features.

    python tools/analyze_attention.py CONFIG CHECKPOINT --images FOLDER --out DIR
    python tools/analyze_attention.py CONFIG --teacher NAME --images FOLDER --out DIR

For a vision transformer: attention distance and NMI of each head. For any network: effective
rank, class separability and similarity of positions of its features.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from rich.console import Console

from hgkd_mm.inspect import analyze, figures_table
from hgkd_mm.utils.launch import add_config_flag, add_inspection_flags, load_config


def main(arguments: list[str] | None = None) -> None:
    """Analyzes the network and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config of the run')
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument('checkpoint', nargs='?', help='its weights, or those of its backbone')
    weights.add_argument('--teacher', metavar='NAME', help='a teacher of the config instead')
    parser.add_argument(
        '--images', metavar='FOLDER', required=True, help='images, in class subfolders or not'
    )
    add_inspection_flags(parser, out='folder for analysis.json and layers.png', num=256)
    add_config_flag(parser, example='model.teachers.mim.checkpoint=FILE')
    args = parser.parse_args(arguments)
    try:
        figures = analyze(
            load_config(args.config, args.cfg_options),
            folder=args.images,
            out=args.out,
            checkpoint=args.checkpoint,
            teacher=args.teacher,
            count=args.num,
            size=args.size and (args.size, args.size),
            seed=args.seed,
            device=args.device,
            trust_checkpoint=args.trust_checkpoint,
        )
    except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
        sys.exit(f'tools/analyze_attention.py: {error}')
    Console().print(figures_table(figures))
    print(f'Written to {args.out}')


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=UserWarning)
    main()
