"""Pictures of what a network makes of some images: masks, reconstructions, features, teachers.

    python tools/visualize.py CONFIG CHECKPOINT FOLDER --out pictures/student.png

Of an H-GKD or SparK run it shows what each head compares, student beside teacher; of any other
mmpretrain, mmdet or mmseg run the maps of its backbone.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from mmengine.config import DictAction

from hgkd_mm.utils.launch import load_config
from hgkd_mm.visualization import visualize


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='its weights, or those of its backbone')
    parser.add_argument('folder', help='folder of images, nested at will')
    parser.add_argument(
        '--out', required=True, help='picture to write (.png, .pdf, .svg, .jpg), or a folder for it'
    )
    parser.add_argument('--num', type=int, default=6, help='number of images (6)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images and the mask')
    parser.add_argument(
        '--size', type=int, help='of the images, in pixels; default: as in training'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ...')
    parser.add_argument(
        '--backbone', action='store_true', help="only the backbone's maps, whatever the model"
    )
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='let the file run pickled code if it must'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override config values: model.mask.ratio=0.75',
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Draws and says what was loaded and shown."""
    args = parse_args(arguments)
    try:
        made = visualize(
            load_config(args.config, args.cfg_options),
            checkpoint=args.checkpoint,
            folder=args.folder,
            out=args.out,
            count=args.num,
            size=None if args.size is None else (args.size, args.size),
            seed=args.seed,
            device=args.device,
            backbone_only=args.backbone,
            trust_checkpoint=args.trust_checkpoint,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        sys.exit(f'tools/visualize.py: {error}')
    print(f'{args.checkpoint}: {made.fit.counts()}.')
    print('\n'.join(made.notes))
    print(f'Picture: {made.path}')


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=UserWarning)
    main()
