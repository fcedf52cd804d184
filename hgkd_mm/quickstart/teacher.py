"""The small teachers: trained by mmpretrain on Scenes, kept as safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .data import ROOT, folder_options, make_scenes
from .job import Job
from .training import train

ASSETS = ROOT / 'assets'


@dataclass(frozen=True, kw_only=True)
class SmallTeacher:
    """A teacher that the repository carries, and how it was made.

    Args:
        config: its training.
        file: name of its weights.
        title: shown beside the progress bar.
        needs_labels: whether a folder of images will not do.
    """

    config: Path
    file: str
    title: str
    needs_labels: bool

    @property
    def carried(self) -> Path:
        """Its weights in the repository."""
        return ASSETS / self.file


TEACHERS = {
    'mae': SmallTeacher(
        config=ROOT / 'configs' / 'pretrain' / 'mae_scenes.py',
        file='mae_scenes.safetensors',
        title='teacher (MAE)',
        needs_labels=False,
    ),
    'supervised': SmallTeacher(
        config=ROOT / 'configs' / 'cls' / 'vit_scenes.py',
        file='vit_scenes.safetensors',
        title='teacher (labels)',
        needs_labels=True,
    ),
}
CARRIED = TEACHERS['mae'].carried


def train_teacher(
    work_dir: Path, *, kind: str = 'mae', data: Path | None = None, seed: int = 0
) -> Path:
    """Trains a small teacher and exports it.

    Args:
        work_dir: logs, checkpoints and the safetensors file.
        kind: 'mae', or 'supervised' by the labels of Scenes.
        data: folder of unlabelled images; None for 12000 Scenes, made if need be, of which
            the quickstart's 6000 are the first half.
        seed: of initialisation, masks and order of images.

    Returns:
        The exported weights.

    Raises:
        RuntimeError: training stopped; the message shows its log.
        ValueError: images without labels for a teacher that needs them.
    """
    teacher = TEACHERS[kind]
    options: dict[str, object] = {'randomness.seed': seed}
    if data is None:
        data = ROOT / 'data' / 'scenes-teacher'
        make_scenes(data, images=12000)
        options['train_dataloader.dataset.data_root'] = str(data)
    elif teacher.needs_labels:
        raise ValueError(
            f"A teacher of kind '{kind}' learns from the labels of Scenes, and {data} is a folder "
            'of images: leave --data away, or take --kind mae.'
        )
    else:
        options.update(folder_options(data, teacher.config))
    if teacher.needs_labels:
        options['val_dataloader.dataset.data_root'] = str(data)
    job = Job(config=teacher.config, work_dir=work_dir, options=options, title=teacher.title)
    (checkpoint,) = train(job)
    return export(checkpoint, work_dir / teacher.file, {'seed': seed, 'data': data.name})


def export(checkpoint: Path, path: Path, facts: dict[str, object]) -> Path:
    """Writes the weights in half precision, without any pickled code.

    Args:
        checkpoint: MMEngine checkpoint of our own making.
        path: safetensors file to write.
        facts: kept in the file's metadata.
    """
    # weights_only=False: a file that this process has just written itself.
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    half = {key: value.half().contiguous() for key, value in state.items()}
    save_file(half, path, metadata={'format': 'pt', 'facts': json.dumps(facts, default=str)})
    return path
