"""The small teachers: trained by mmpretrain on Scenes, kept as safetensors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hgkd_mm.scenes import SceneFolder, make_scenes
from hgkd_mm.weights.reading import read_tensors

from .places import ASSETS, CONFIGS, SCENES, WORK_DIRS
from .training import Job, folder_options, train


@dataclass(frozen=True, kw_only=True)
class SmallTeacher:
    """A teacher that the repository carries, and how it was made.

    Args:
        config: its training.
        file: name of its weights.
        title: shown beside the progress bar.
        needs_labels: whether it learns from the labels of Scenes.
        start: kind of the teacher from whose weights it starts, None for random ones.
        keep: prefix of the weights that are exported.
    """

    config: Path
    file: str
    title: str
    needs_labels: bool = False
    start: str | None = None
    keep: str = ''

    @property
    def carried(self) -> Path:
        """Its weights in the repository."""
        return ASSETS / self.file


TEACHERS = {
    'mae': SmallTeacher(
        config=CONFIGS / 'pretrain' / 'mae_scenes.py',
        file='mae_scenes.safetensors',
        title='teacher (MAE)',
    ),
    'supervised': SmallTeacher(
        config=CONFIGS / 'cls' / 'vit_scenes.py',
        file='vit_scenes.safetensors',
        title='teacher (labels)',
        needs_labels=True,
        start='mae',
    ),
    'contrastive': SmallTeacher(
        config=CONFIGS / 'pretrain' / 'moco_scenes.py',
        file='moco_scenes.safetensors',
        title='teacher (MoCo v3)',
        start='mae',
        keep='backbone.',
    ),
}
CARRIED = TEACHERS['mae'].carried


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
        The exported weights.

    Raises:
        RuntimeError: training stopped; the message shows its log.
        ValueError: images without labels for a teacher that needs them.
    """
    teacher = TEACHERS[kind]
    unlabelled = data is not None and not teacher.needs_labels
    if data is None:
        data = SCENES.with_name('scenes-teacher')
        make_scenes(SceneFolder(out=data, train=12000), layouts=False)
    elif teacher.needs_labels and not (data / 'meta.json').is_file():
        raise ValueError(
            f"A teacher of kind '{kind}' learns from the labels of Scenes, and {data} has no "
            'meta.json of tools/make_scenes.py: leave --data away, or take --kind mae.'
        )
    folder = folder_options(data, teacher.config) if unlabelled else _scenes_options(data, teacher)
    options = {'randomness.seed': seed, **folder, **(options or {})}
    if teacher.start:
        start = TEACHERS[teacher.start].carried
        options['model.backbone.init_cfg.checkpoint'] = str(_as_checkpoint(start, work_dir))
    job = Job(
        config=teacher.config, work_dir=work_dir / 'training', options=options, title=teacher.title
    )
    (checkpoint,) = train(job)
    facts = {'seed': seed, 'data': data.name}
    return export(checkpoint, work_dir / teacher.file, facts, keep=teacher.keep)


def export(checkpoint: Path, path: Path, facts: dict[str, object], *, keep: str = '') -> Path:
    """Writes the weights of a training in half precision, without any pickled code.

    Args:
        checkpoint: MMEngine's checkpoint.
        path: safetensors file to write.
        facts: kept in the file's metadata.
        keep: prefix of the weights to write; what begins otherwise is left out.
    """
    state = read_tensors(checkpoint)
    half = {key: value.half().contiguous() for key, value in state.items() if key.startswith(keep)}
    save_file(half, path, metadata={'format': 'pt', 'facts': json.dumps(facts, default=str)})
    return path


def _scenes_options(data: Path, teacher: SmallTeacher) -> dict[str, object]:
    loaders = ('train', 'val') if teacher.needs_labels else ('train',)
    return {f'{loader}_dataloader.dataset.data_root': str(data) for loader in loaders}


def _as_checkpoint(weights: Path, folder: Path) -> Path:
    """A safetensors file as the kind of checkpoint that ``init_cfg`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{weights.stem}.pth'
    state = {key: value.float() for key, value in load_file(weights).items()}
    torch.save({'state_dict': state}, path)
    return path


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
    if args.data is not None and not args.data.is_dir():
        sys.exit(f'train_teacher: --data {args.data} is not a folder.')
    work_dir = args.work_dir or WORK_DIRS / f'teacher-{args.kind}'
    data = args.data and args.data.resolve()
    try:
        weights = train_teacher(work_dir.resolve(), kind=args.kind, data=data, seed=args.seed)
    except (RuntimeError, ValueError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f'train_teacher: {error}')
    print(f'Teacher: {weights}')


if __name__ == '__main__':
    main()
