"""The backbone in a checkpoint of pre-training, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hgkd_mm import __version__
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

from .network import describe_backbone, parse_config_text, short_name

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
        RuntimeError: the file is broken, or contains code and is not trusted.
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


def run_metadata(
    *, source: str, sha256: str, model: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, str]:
    """The run that a backbone comes from, as text, since safetensors allows no other metadata.

    Args:
        source: name of the checkpoint file.
        sha256: of that file, hexadecimal.
        model: config of the pre-trained model.
        meta: of the checkpoint, which may lack entries.
    """
    given = model.get('data_preprocessor')
    images = given if isinstance(given, Mapping) else {}
    values = {
        'hgkd_mm_version': __version__,
        'method': short_name(model.get('type', 'unknown')),
        'source': source,
        'source_sha256': sha256,
        'epoch': meta.get('epoch'),
        'iteration': meta.get('iter'),
        'experiment': meta.get('experiment_name'),
        'backbone': json.dumps(model['backbone'], default=str),
        'images': json.dumps(
            {key: images[key] for key in ('mean', 'std', 'to_rgb') if key in images}, default=str
        ),
        'config': meta.get('cfg'),
    }
    return {key: str(value) for key, value in values.items() if value not in (None, '')}
