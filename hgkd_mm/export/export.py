"""A backbone into a file for one library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.utils import to_2tuple

from hgkd_mm.utils.files import write_whole

from .counterparts import to_mmpretrain, to_timm, to_torchvision
from .files import SUFFIXES, check_output, weights_bytes
from .loading import Converted
from .onnx_file import onnx_bytes
from .source import PretrainedBackbone

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
