"""The small teachers: trained by mmpretrain on Scenes, kept as safetensors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.weights.reading import read_tensors

from . import ASSETS, CONFIGS, SCENES, WORK_DIRS
from .training import Job, folder_options, train

# How those that the repository carries are made: assets/README.md.
TEACHERS = {
    'mae': CONFIGS / 'pretrain' / 'mae_scenes.py',
    'supervised': CONFIGS / 'cls' / 'vit_scenes.py',
    'contrastive': CONFIGS / 'pretrain' / 'moco_scenes.py',
}
CARRIED = ASSETS / 'mae_scenes.safetensors'


def train_teacher(
    work_dir: Path,
    *,
    kind: str = 'mae',
    data: Path | None = None,
    seed: int = 0,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Trains a small teacher and exports it; a finished training is not repeated.

    Args:
        work_dir: logs, checkpoints and the safetensors file.
        kind: 'mae', 'supervised' by the labels of Scenes, or 'contrastive' (MoCo v3).
        data: folder of unlabelled images, of Scenes for a teacher with labels; None for 12000
            Scenes, made if need be, of which the quickstart's 6000 are the first half.
        seed: of initialization, masks and order of images.
        options: overrides by dotted config key.

    Returns:
        The exported weights, in half precision, without any pickled code.
    """
    config = TEACHERS[kind]
    if data is not None and kind != 'supervised':
        images = folder_options(data, config)
    else:
        if data is None:
            data = SCENES.with_name('scenes-teacher')
            make_scenes(SceneFolder(out=data, train=12000), layouts=False)
        loaders = ('train', 'val') if kind == 'supervised' else ('train',)
        images = {f'{loader}_dataloader.dataset.data_root': str(data) for loader in loaders}
    job = Job(
        config=config,
        work_dir=work_dir / 'training',
        options={'randomness.seed': seed, **images, **(options or {})},
        title=f'teacher ({kind})',
    )
    train(job)
    # Of MoCo v3, neither the momentum encoder nor what makes its embeddings.
    keep = 'backbone.' if kind == 'contrastive' else ''
    state = read_tensors(job.checkpoint)
    half = {key: value.half().contiguous() for key, value in state.items() if key.startswith(keep)}
    weights = work_dir / f'{config.stem}.safetensors'
    facts = json.dumps({'seed': seed, 'data': data.name})
    save_file(half, weights, metadata={'format': 'pt', 'facts': facts})
    return weights


def main() -> None:
    """Trains a teacher and prints where its weights are."""
    parser = argparse.ArgumentParser(description='Trains a small teacher.')
    parser.add_argument('--kind', choices=sorted(TEACHERS), default='mae')
    parser.add_argument(
        '--data', type=Path, help='folder of images; of Scenes for --kind supervised'
    )
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/teacher-<kind>')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    work_dir = args.work_dir or WORK_DIRS / f'teacher-{args.kind}'
    data = args.data and args.data.resolve()
    try:
        weights = train_teacher(work_dir.resolve(), kind=args.kind, data=data, seed=args.seed)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f'train_teacher: {error}')
    print(f'Teacher: {weights}')


if __name__ == '__main__':
    main()
