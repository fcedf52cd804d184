"""For mmpretrain's own models: the names stay, under 'backbone.'."""

from __future__ import annotations

from torch import nn

from hgkd_mm.weights.reading import BACKBONE

from .loading import Converted, load_converted
from .network import build_backbone
from .source import PretrainedBackbone


def to_mmpretrain(backbone: PretrainedBackbone) -> Converted:
    """The backbone as mmpretrain's classifiers hold it.

    The prefix is that of mmpretrain's checkpoints, so that ``load_from`` and
    ``mmpretrain.get_model(..., pretrained=FILE)`` take the file, as ``init_cfg`` with
    ``prefix='backbone.'`` does.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    config = backbone.config
    network = nn.Module()
    network.add_module(BACKBONE.rstrip('.'), build_backbone(config))
    weights, report = load_converted(
        network,
        {BACKBONE + name: value for name, value in backbone.weights.items()},
        what=f"mmpretrain's {config['type']}",
    )
    shown = ', '.join(f'{key}={value!r}' for key, value in config.items())
    return Converted(
        network=network.get_submodule(BACKBONE.rstrip('.')),
        weights=weights,
        made_by=f'dict({shown})',
        load="init_cfg=dict(type='Pretrained', checkpoint={file}, prefix='backbone.')",
        report=report,
    )
