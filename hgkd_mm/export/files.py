"""What the files of exported backbones hold, and how they are named."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

SUFFIXES = {
    'mmpretrain': ('.pth',),
    'mmdet': ('.pth',),
    'timm': ('.safetensors', '.pth'),
    'torchvision': ('.safetensors', '.pth'),
    'onnx': ('.onnx',),
}


def check_output(out: Path, target: str) -> None:
    """Refuses a file name that the target could not read.

    Raises:
        ValueError: the suffix is not one of the target's.
        FileNotFoundError: there is no such folder.
    """
    suffixes = SUFFIXES[target]
    if out.suffix not in suffixes:
        reason = ' (MMEngine reads no other)' if suffixes == ('.pth',) else ''
        raise ValueError(
            f"The file for {target} ends in {' or '.join(suffixes)}{reason}, and OUT is '{out}'."
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{out.parent}' to write '{out.name}' into.")


def weights_bytes(weights: Mapping[str, Tensor], metadata: Mapping[str, str], suffix: str) -> bytes:
    """A weight file: ``.safetensors`` with metadata, else ``state_dict`` and ``meta`` of torch.

    Args:
        weights: name to tensor.
        metadata: text by name.
        suffix: of the file.
    """
    if suffix == '.safetensors':
        return save(dict(weights), metadata=dict(metadata))
    file = io.BytesIO()
    torch.save({'meta': dict(metadata), 'state_dict': dict(weights)}, file)
    return file.getvalue()
