"""A backbone into a file for one library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmengine.utils import to_2tuple

from hgkd_mm.utils.environment import need_ops
from hgkd_mm.utils.files import write_whole

from .counterparts import to_timm, to_torchvision
from .files import SUFFIXES, check_output, weights_bytes
from .loading import Converted
from .onnx_file import onnx_bytes, to_onnx
from .openmmlab import to_mmdet, to_mmpretrain
from .source import PretrainedBackbone

TARGETS = tuple(SUFFIXES)
_CONVERTERS: dict[str, Callable[[PretrainedBackbone], Converted]] = {
    'mmdet': to_mmdet,
    'timm': to_timm,
    'torchvision': to_torchvision,
    'onnx': to_onnx,
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written file: what is in it, how it was loaded, and the metadata beside the weights."""

    path: Path
    converted: Converted
    metadata: dict[str, str]

    def load_line(self) -> str:
        """What loads the file in its library."""
        file = repr(str(self.path))
        if self.path.suffix == '.safetensors':
            weights = f'safetensors.torch.load_file({file})'
        else:
            weights = f"torch.load({file}, weights_only=True)['state_dict']"
        return self.converted.load.replace('{file}', file).replace('{weights}', weights)


def convert(backbone: PretrainedBackbone, target: str) -> Converted:
    """The backbone in the target's network.

    It is loaded into mmpretrain's network first, so that what is converted is what the config
    says.

    Args:
        backbone: what to convert.
        target: one of `TARGETS`.

    Raises:
        ValueError: the target does not exist or does not have the network, or the weights do not
            fit it.
        MissingOpsError: the target is mmdet, and mmcv has no compiled ops.
    """
    if target not in TARGETS:
        raise ValueError(f'The target is one of {", ".join(TARGETS)}, and not {target!r}.')
    if target == 'mmdet':
        need_ops('The export to mmdet')
    converted = to_mmpretrain(backbone)
    return converted if target == 'mmpretrain' else _CONVERTERS[target](backbone)


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
    if size is not None and target != 'onnx':
        raise ValueError(f'--size is for --to onnx, and --to {target} takes images of any size.')
    converted = convert(backbone, target)
    check_output(out, target)
    metadata = backbone.provenance.metadata(target=target, network=converted.made_by)
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
