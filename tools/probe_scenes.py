"""How far raw pixels separate the classes of Scenes: a linear probe on 32 x 32 pixels.

python tools/probe_scenes.py --data data/scenes
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgkd_mm.evaluation import knn_accuracy, linear_probe  # noqa: E402


def pixels(folder: Path, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3072) pixels in [-0.5, 0.5] and (N,) labels of a folder of classes."""
    files = sorted(folder.glob('*/*.jpg'), key=lambda file: file.name)[:limit]
    classes = sorted({file.parent.name for file in files})
    rows = [
        cv2.resize(cv2.imread(str(file)), (32, 32), interpolation=cv2.INTER_AREA) for file in files
    ]
    labels = [classes.index(file.parent.name) for file in files]
    return torch.from_numpy(np.stack(rows)).flatten(1) / 255.0 - 0.5, torch.tensor(labels)


def main() -> None:
    """Prints the two accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'scenes')
    parser.add_argument('--train', type=int, default=5000, help='labelled images to learn from')
    args = parser.parse_args()
    if not (args.data / 'train').is_dir():
        sys.exit(f'probe_scenes: {args.data} has no train/: run tools/make_scenes.py first.')
    train, val = pixels(args.data / 'train', args.train), pixels(args.data / 'val', 10**6)
    probe = linear_probe(*train, *val, candidates=(1e-5, 1e-4, 1e-3, 1e-2))
    print(f'raw pixels, {len(train[0])} training and {len(val[0])} validation images, top-1 in %:')
    print(f'linear probe {probe.top1:.1f}, kNN {knn_accuracy(*train, *val):.1f}, chance 8.3')


if __name__ == '__main__':
    main()
