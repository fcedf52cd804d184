"""Weights of a checkpoint into a network, all of them or none, with a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from hgkd_mm.utils import checkpoint_file
from hgkd_mm.utils.checkpoint_file import BACKBONE, Wording, under_prefix
from hgkd_mm.utils.weights_fit import Fit, compare, fitting

_WORDING = Wording(
    kind='checkpoint', given_by='argument CHECKPOINT', trust='the flag --trust-checkpoint'
)


def read_tensors(checkpoint: str | Path, *, trust_checkpoint: bool = False) -> dict[str, Tensor]:
    """Name to tensor of a checkpoint; see `hgkd_mm.utils.checkpoint_file.read_tensors`."""
    return checkpoint_file.read_tensors(str(checkpoint), _WORDING, trusted=trust_checkpoint)


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> Fit:
    """Fills a whole model.

    Args:
        model: the model.
        tensors: in its own naming.
        source: where they come from, for messages.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    return _fill(
        model,
        tensors,
        hint=(
            f'{source} was not made with this config (give the config of its run, or --backbone '
            'to look at the backbone alone)'
        ),
    )


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> Fit:
    """Fills a backbone with those under 'backbone.', or from a file of a bare backbone.

    In the latter names whose first part the network does not have, as ``fc``, are not used.

    Args:
        backbone: the network.
        tensors: name to tensor.
        source: where they come from, for messages.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    if any(name.startswith(BACKBONE) for name in tensors):
        own = under_prefix(tensors, BACKBONE, source=source, why='as those of training do')
        left = tuple(name for name in tensors if not name.startswith(BACKBONE))
    else:
        parts = {name.split('.')[0] for name in backbone.state_dict()}
        own = {name: value for name, value in tensors.items() if name.split('.')[0] in parts}
        left = tuple(name for name in tensors if name not in own)
    hint = f'{source} is of another network than model.backbone of the config'
    return replace(_fill(backbone, own, hint=hint), unused=left)


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], *, hint: str) -> Fit:
    own = module.state_dict()
    fit = compare(own, tensors)
    if fit.lacking or fit.unused:
        raise ValueError(f'{hint}: it fills {fit.counts()}, and all weights of both have to match.')
    # older torch resets counters that are absent
    module.load_state_dict({**own, **fitting(own, tensors)})
    return fit
