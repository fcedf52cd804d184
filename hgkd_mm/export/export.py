"""A backbone into a file for one library."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.utils import to_2tuple
from safetensors.torch import save
from torch import Tensor

from hgkd_mm.utils.files import write_whole

from .counterparts import Converted, to_mmpretrain, to_timm, to_torchvision
from .onnx_file import onnx_bytes
from .source import PretrainedBackbone

SUFFIXES = {
    'mmpretrain': ('.pth',),
    'timm': ('.safetensors', '.pth'),
    'torchvision': ('.safetensors', '.pth'),
    'onnx': ('.onnx',),
}
TARGETS = tuple(SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written file: what is in it, how it was loaded, and the metadata beside the weights."""

    path: Path
    converted: Converted
    metadata: dict[str, str]


def convert(backbone: PretrainedBackbone, target: str) -> Converted:
    """The backbone in the network of one of `TARGETS`.

    It is loaded into mmpretrain's network first, so that what is converted is what the config
    says.

    Raises:
        ValueError: the target does not have the network, or the weights do not fit it.
    """
    converted = to_mmpretrain(backbone)
    if target == 'timm':
        return to_timm(backbone)
    return to_torchvision(backbone) if target == 'torchvision' else converted


def export_backbone(
    backbone: PretrainedBackbone,
    *,
    target: str,
    out: str | Path,
    size: tuple[int, int] | None = None,
) -> Exported:
    """Writes a backbone for one library; nothing is written unless all of it fits.

    Args:
        backbone: what to export.
        target: one of `TARGETS`.
        out: file to write; ``.pth``, ``.safetensors`` (timm, torchvision) or ``.onnx``.
        size: height and width in pixels that an ONNX file takes if they have to be fixed;
            default: the backbone's ``img_size``, 224 if it has none.

    Raises:
        ValueError: the target does not have the network, does not read such a file or has no
            size, the weights do not fit, or the ONNX file does not give the network's maps.
        FileNotFoundError: the folder of ``out`` does not exist.
        OSError: the file could not be written.
    """
    out = Path(out)
    check_output(out, target)
    if size is not None and target != 'onnx':
        raise ValueError(f'--size is for --to onnx, and --to {target} takes images of any size.')
    converted = convert(backbone, target)
    metadata = {**backbone.metadata, 'target': target, 'network': converted.made_by}
    if target == 'onnx':
        size = size or to_2tuple(backbone.config.get('img_size', 224))
        # what a ViT pads to; a CNN's stages halve the map five times
        patch = backbone.config.get('patch_size', 32)
        step = patch if isinstance(patch, int) else 32
        content, found = onnx_bytes(converted.network, metadata, size=size, step=step)
        metadata |= found
    else:
        content = weights_bytes(converted.weights, metadata, out.suffix)
    write_whole(out, content)
    return Exported(path=out, converted=converted, metadata=metadata)


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
