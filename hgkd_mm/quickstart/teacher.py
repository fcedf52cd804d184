"""The small MAE teacher: trained by mmpretrain's MAE on Scenes, kept as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .data import ROOT, folder_options, make_scenes
from .job import Job
from .training import train

CONFIG = ROOT / 'configs' / 'pretrain' / 'mae_scenes.py'
CARRIED = ROOT / 'assets' / 'mae_scenes.safetensors'


def train_teacher(work_dir: Path, *, data: Path | None = None, seed: int = 0) -> Path:
    """Trains the teacher of ``configs/pretrain/mae_scenes.py`` and exports it.

    Args:
        work_dir: logs, checkpoints and ``mae_scenes.safetensors``.
        data: folder of unlabelled images; None for 12000 Scenes, made if need be, of which
            the quickstart's 6000 are the first half.
        seed: of initialisation, masks and order of images.

    Returns:
        The exported weights.

    Raises:
        RuntimeError: training stopped; the message shows its log.
    """
    options: dict[str, object] = {'randomness.seed': seed}
    if data is None:
        data = ROOT / 'data' / 'scenes-teacher'
        make_scenes(data, images=12000)
        options['train_dataloader.dataset.data_root'] = str(data)
    else:
        options.update(folder_options(data, CONFIG))
    job = Job(config=CONFIG, work_dir=work_dir, options=options, title='teacher (MAE)')
    (checkpoint,) = train(job)
    return export(checkpoint, work_dir / CARRIED.name, {'seed': seed, 'data': data.name})


def export(checkpoint: Path, path: Path, facts: dict[str, object]) -> Path:
    """Writes encoder and decoder weights in half precision, without any pickled code.

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
