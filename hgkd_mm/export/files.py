"""What the files of exported backbones hold: weights, and where they come from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hgkd_mm import __version__

from .network import short_name

SUFFIXES = {
    'mmpretrain': ('.pth',),
    'timm': ('.safetensors', '.pth'),
    'torchvision': ('.safetensors', '.pth'),
    'onnx': ('.onnx',),
}


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


def check_output(out: Path, target: str) -> None:
    """Refuses a file that the target cannot read, or that cannot be written.

    Raises:
        ValueError: there is no such target, or the suffix is not one of its.
        FileNotFoundError: there is no such folder.
    """
    if target not in SUFFIXES:
        raise ValueError(f'The target is one of {", ".join(SUFFIXES)}, and not {target!r}.')
    suffixes = SUFFIXES[target]
    if out.suffix not in suffixes:
        raise ValueError(
            f"The file for {target} ends in {' or '.join(suffixes)}, and OUT is '{out}'."
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{out.parent}' to write '{out.name}' into.")


def weights_bytes(weights: Mapping[str, Tensor], metadata: Mapping[str, str], suffix: str) -> bytes:
    """A weight file: ``.safetensors`` with metadata, else ``state_dict`` and ``meta`` of torch."""
    if suffix == '.safetensors':
        return save(dict(weights), metadata=dict(metadata))
    file = io.BytesIO()
    torch.save({'meta': dict(metadata), 'state_dict': dict(weights)}, file)
    return file.getvalue()
