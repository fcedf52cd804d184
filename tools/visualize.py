"""Draws what a network computes for some images: masks, reconstructions, features, teachers.

    python tools/visualize.py CONFIG CHECKPOINT FOLDER --out pictures/student.png

For an H-GKD or SparK run it shows what each head compares, student next to teacher; for any
other mmpretrain, mmdet or mmseg run it shows the maps of the backbone.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from hgkd_mm.inspect import visualize
from hgkd_mm.utils.launch import add_config_flag, add_inspection_flags, load_config


def main(arguments: list[str] | None = None) -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='its weights, or those of its backbone')
    parser.add_argument('folder', help='folder of images, nested at will')
    parser.add_argument(
        '--backbone', action='store_true', help="only the backbone's maps, whatever the model"
    )
    add_inspection_flags(
        parser, out='picture to write (.png, .pdf, .svg, .jpg), or a folder for it', num=6
    )
    add_config_flag(parser, example='model.mask.ratio=0.75')
    args = parser.parse_args(arguments)
    try:
        path = visualize(
            load_config(args.config, args.cfg_options),
            checkpoint=args.checkpoint,
            folder=args.folder,
            out=args.out,
            count=args.num,
            size=args.size and (args.size, args.size),
            seed=args.seed,
            device=args.device,
            backbone_only=args.backbone,
            trust_checkpoint=args.trust_checkpoint,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        sys.exit(f'tools/visualize.py: {error}')
    print(f'Picture: {path}')


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=UserWarning)
    main()
