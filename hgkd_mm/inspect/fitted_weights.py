"""Weights of a checkpoint into a network, all of them or none, with a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from hgkd_mm.weights import reading
from hgkd_mm.weights.fit import Fit, load_whole
from hgkd_mm.weights.reading import BACKBONE


def read_tensors(checkpoint: str | Path, *, trust_checkpoint: bool = False) -> dict[str, Tensor]:
    """Name to tensor of a checkpoint; see `hgkd_mm.weights.reading.read_tensors`."""
    return reading.read_tensors(checkpoint, key='argument CHECKPOINT', trusted=trust_checkpoint)


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> Fit:
    """Fills a whole model from tensors in its own naming.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    wrong = (
        f'{source} was not made with this config (give the config of its run, or --backbone to '
        'look at the backbone alone)'
    )
    return load_whole(model, tensors, what=wrong)


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> Fit:
    """Fills a backbone with those under 'backbone.', or from a file of a bare backbone.

    In the latter names whose first part the network does not have, as ``fc``, are not used.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    weights = {
        name.removeprefix(BACKBONE): value
        for name, value in tensors.items()
        if name.startswith(BACKBONE)
    }
    left = tuple(name for name in tensors if not name.startswith(BACKBONE))
    if not weights:
        parts = {name.split('.')[0] for name in backbone.state_dict()}
        weights = {name: tensors[name] for name in left if name.split('.')[0] in parts}
        left = tuple(name for name in left if name not in weights)
    wrong = f'{source} is of another network than model.backbone of the config'
    return replace(load_whole(backbone, weights, what=wrong), unused=left)
