"""The small MAE teacher: trained by mmpretrain's MAE on Scenes, kept as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .training import ROOT, train

CONFIG = ROOT / 'configs' / 'pretrain' / 'mae_scenes.py'
CARRIED = ROOT / 'assets' / 'mae_scenes.safetensors'


def train_teacher(work_dir: Path, options: dict[str, object]) -> Path:
    """Trains the teacher of ``configs/pretrain/mae_scenes.py`` and exports it.

    Args:
        work_dir: logs, checkpoints and ``mae_scenes.safetensors``.
        options: overrides by dotted key.

    Returns:
        The exported weights.
    """
    checkpoint = train(CONFIG, work_dir, options, 'teacher (MAE)')
    return export(checkpoint, work_dir / CARRIED.name, options)


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
