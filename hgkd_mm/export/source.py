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

from .files import run_metadata
from .network import describe_backbone, parse_config_text

_KEY = 'argument CKPT'


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """A backbone as it is exported.

    Attributes:
        weights: name to tensor, in mmpretrain's naming, without 'backbone.'.
        config: config of mmpretrain's backbone, as `describe_backbone` gives it.
        metadata: the run that they come from, as `run_metadata` gives it.
    """

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    metadata: Mapping[str, str]


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
    with local_file(str(checkpoint), key=_KEY) as path:
        content = read_file(path, key=_KEY, trusted=trust_checkpoint)
        digest = sha256_of(path)
    tensors = without_wrapper(find_tensors(content, str(path), key=_KEY))
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if config is None:
        model = parse_config_text(str(meta.get('cfg', ''))).get('model')
    else:
        loaded = load_config(str(config))
        model, meta = loaded.to_dict().get('model'), {**meta, 'cfg': loaded.pretty_text}
    return backbone_of(
        tensors, model, meta, checkpoint=path, sha256=digest, trusted=config is not None
    )


def backbone_of(
    tensors: Mapping[str, Tensor],
    model: Any,
    meta: Mapping[str, Any],
    *,
    checkpoint: Path,
    sha256: str,
    trusted: bool,
) -> PretrainedBackbone:
    """The backbone among the weights of a model.

    Args:
        tensors: name to tensor of the whole model.
        model: its config.
        meta: of the checkpoint.
        checkpoint: file that they are from.
        sha256: of the file.
        trusted: whether the config may name classes of other packages.

    Raises:
        ValueError: there are no weights under 'backbone.', or no config says which network it is.
    """
    key = 'where pre-training puts them'
    weights = under_prefix(tensors, BACKBONE, source=str(checkpoint), key=key)
    if not isinstance(model, Mapping) or not isinstance(model.get('backbone'), Mapping):
        raise ValueError(
            f'The config of {checkpoint} has no model.backbone, so that the network is not known: '
            'give the config file of the run (--config).'
        )
    return PretrainedBackbone(
        weights=weights,
        config=describe_backbone(model['backbone'], trusted=trusted),
        metadata=run_metadata(source=checkpoint.name, sha256=sha256, model=model, meta=meta),
    )
