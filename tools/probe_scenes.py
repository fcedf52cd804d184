"""How far raw pixels, or a teacher's embeddings, separate the classes of Scenes: probe and kNN.

python tools/probe_scenes.py --data data/scenes
python tools/probe_scenes.py --config configs/pretrain/hybrid-hgkd_r18_scenes.py --teacher cl
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.registry import init_default_scope  # noqa: E402

from hgkd_mm.evaluation import knn_accuracy, linear_probe  # noqa: E402
from hgkd_mm.experiments.evaluation import FrozenEvaluation, build_student  # noqa: E402
from hgkd_mm.scenes import CLASSES  # noqa: E402
from hgkd_mm.utils.launch import add_config_flag, load_config  # noqa: E402


def pixels(folder: Path, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3072) pixels in [-0.5, 0.5] and (N,) labels of a folder of classes."""
    files = sorted(folder.glob('*/*.jpg'), key=lambda file: file.name)[:limit]
    rows = [
        cv2.resize(cv2.imread(str(file)), (32, 32), interpolation=cv2.INTER_AREA) for file in files
    ]
    labels = [CLASSES.index(file.parent.name) for file in files]
    return torch.from_numpy(np.stack(rows)).flatten(1) / 255.0 - 0.5, torch.tensor(labels)


def main() -> None:
    """Prints the two accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'scenes')
    parser.add_argument(
        '--train', type=int, help='labelled images to learn from; 5000, for teachers 2400'
    )
    parser.add_argument('--config', help='pre-training of a student')
    parser.add_argument('--teacher', metavar='NAME', help='a teacher of the config, not pixels')
    add_config_flag(parser, example='model.teachers.cl.checkpoint=FILE')
    args = parser.parse_args()
    if not (args.data / 'train').is_dir():
        sys.exit(f'probe_scenes: {args.data} has no train/: run tools/make_scenes.py first.')
    if (args.config is None) != (args.teacher is None):
        sys.exit('probe_scenes: --teacher NAME is one of --config CONFIG: give both or neither.')
    if args.teacher:
        try:
            title, probe, knn = probe_teacher(args)
        except KeyError as error:
            sys.exit(f'probe_scenes: {error.args[0]}')
        except (OSError, ValueError, RuntimeError) as error:
            sys.exit(f'probe_scenes: {error}')
    else:
        title, probe, knn = probe_pixels(args)
    print(f'{title}, top-1 in %:\nlinear probe {probe:.1f}, kNN {knn:.1f}, chance 8.3')


def probe_teacher(args: argparse.Namespace) -> tuple[str, float, float]:
    """What a teacher's embeddings of whole images are called here, their probe and kNN in %."""
    init_default_scope('mmpretrain')
    config = load_config(args.config, args.cfg_options)
    evaluation = FrozenEvaluation(args.data, args.train or 2400)
    score = evaluation.score_teacher(build_student(config.model, None, seed=0), args.teacher)
    images = f'{len(evaluation.train)} training and {len(evaluation.val)} validation images'
    return f"teacher '{args.teacher}', {images}", score.linear, score.knn


def probe_pixels(args: argparse.Namespace) -> tuple[str, float, float]:
    """The same of raw pixels."""
    train, val = pixels(args.data / 'train', args.train or 5000), pixels(args.data / 'val', 10**6)
    probe = linear_probe(*train, *val, candidates=(1e-5, 1e-4, 1e-3, 1e-2))
    title = f'raw pixels, {len(train[0])} training and {len(val[0])} validation images'
    return title, probe.top1, knn_accuracy(*train, *val)


if __name__ == '__main__':
    main()
