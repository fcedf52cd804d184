"""The backbone in a checkpoint of pre-training, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hgkd_mm.utils.files import sha256_of
from hgkd_mm.utils.launch import load_config
from hgkd_mm.weights.reading import (
    BACKBONE,
    find_tensors,
    local_file,
    read_file,
    under_prefix,
    without_wrapper,
)

from .files import Provenance
from .network import describe_backbone, parse_config_text

_KEY = 'argument CKPT'


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """A backbone as it is exported.

    Attributes:
        weights: name to tensor on the CPU, in mmpretrain's naming, without 'backbone.'.
        config: config of mmpretrain's backbone, as `describe_backbone` gives it.
        provenance: where they come from.
    """

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    provenance: Provenance


def read_pretrained(
    checkpoint: str | Path, *, config: str | Path | None = None, trust_checkpoint: bool = False
) -> PretrainedBackbone:
    """Reads the backbone of a checkpoint of MMEngine's Runner.

    Neither the file nor the config text in it is run.

    Args:
        checkpoint: path or address of a file whose weights lie under 'backbone.'.
        config: config file of the run, instead of the text in the checkpoint. It is run, as
            MMEngine does with config files, and may import networks of your own.
        trust_checkpoint: allow the file to run pickled code if it cannot be read without.

    Raises:
        FileNotFoundError: there is no such checkpoint or config.
        RuntimeError: the file is broken, or wants to run code and is not trusted.
        ValueError: the file holds no backbone, or nothing says which network it is.
    """
    source = str(checkpoint)
    with local_file(source, key=_KEY) as path:
        content = read_file(path, key=_KEY, trusted=trust_checkpoint)
        digest = sha256_of(path)
    weights = backbone_weights(without_wrapper(find_tensors(content, source, key=_KEY)), source)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    if config is None:
        model = _model_of_text(meta.get('cfg'), source)
    else:
        loaded = load_config(str(config))
        model = loaded.to_dict().get('model')
        meta = {**meta, 'cfg': loaded.pretty_text}
    if not isinstance(model, Mapping) or not isinstance(model.get('backbone'), Mapping):
        raise ValueError(
            f'{config or source} has no model.backbone in its config, so that the network is not '
            'known: give the config file of the run with --config.'
        )
    return PretrainedBackbone(
        weights=weights,
        config=describe_backbone(model['backbone'], trusted=config is not None),
        provenance=Provenance.of_run(source=path.name, sha256=digest, model=model, meta=meta),
    )


def backbone_weights(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors under 'backbone.', without that prefix.

    Raises:
        ValueError: there are none.
    """
    return under_prefix(tensors, BACKBONE, source=source, key='where pre-training puts them')


def _model_of_text(text: object, source: str) -> Any:
    if not isinstance(text, str):
        raise ValueError(
            f'{source} does not say which network it holds (it has no meta.cfg): give the config '
            'file of the run with --config.'
        )
    try:
        return parse_config_text(text).get('model')
    except ValueError as error:
        raise ValueError(
            f'{source} does not say which network it holds: {error}. Give the config file of the '
            'run with --config.'
        ) from error
