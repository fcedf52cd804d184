"""From a config, a checkpoint and a folder of images to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hgkd_mm.evaluation.rng import isolated_rng
from hgkd_mm.models import HGKD
from hgkd_mm.utils.device import check_device
from hgkd_mm.weights.fit import Fit

from .backbone_view import view_backbone
from .distillation_view import view_distillation
from .fitted_weights import load_backbone, load_model, read_tensors
from .folder_images import FolderImages, Size, load_folder_images, training_size
from .input_format import InputFormat
from .view_figure import draw_view


@dataclass(frozen=True, kw_only=True)
class Visualization:
    """What was drawn, and of what.

    Attributes:
        path: the picture.
        fit: of the checkpoint.
        images: the images.
        notes: the sentences below the picture.
    """

    path: Path
    fit: Fit
    images: FolderImages
    notes: tuple[str, ...]


def visualize(
    config: Config,
    *,
    checkpoint: str,
    folder: str | Path,
    out: str | Path,
    count: int = 6,
    size: Size | None = None,
    seed: int = 0,
    device: str = 'cpu',
    backbone_only: bool = False,
    trust_checkpoint: bool = False,
) -> Visualization:
    """Draws what a network makes of some images of a folder.

    Of an ``HGKD`` model what each of its heads compares (`view_distillation`); of any other
    the maps of ``model.backbone`` (`view_backbone`).

    Args:
        config: of the run that the checkpoint is from; of mmpretrain, mmdet or mmseg.
        checkpoint: path or address of the weights.
        folder: images, nested at will.
        out: picture to write, or a folder to write ``<checkpoint>.png`` into.
        count: number of images.
        size: (H, W) that they are cropped to; that of training if None.
        seed: of the choice of images and of the mask, which is the same on every device.
        device: where to compute.
        backbone_only: treat an HGKD model as any other.
        trust_checkpoint: allow the checkpoint to run pickled code.

    Raises:
        FileNotFoundError: a file or the folder is missing, or the folder holds no image.
        RuntimeError: the checkpoint cannot be read, all images are broken, or there is no such
            device.
        ValueError: config, checkpoint, sizes or the name of the picture do not fit.
    """
    if 'backbone' not in (config.get('model') or {}):
        raise ValueError(
            f'{config.filename} has no model.backbone, so there is no network to look at: give '
            'the config of a training run.'
        )
    path = _picture_path(Path(out), checkpoint)
    input_format = InputFormat.of(config)
    check_device(device)
    images = load_folder_images(folder, count=count, size=size or training_size(config), seed=seed)
    tensors = read_tensors(checkpoint, trust_checkpoint=trust_checkpoint)
    batch = input_format.normalize(images.pictures).to(device)
    model = _build(config, backbone_only)
    if isinstance(model, HGKD):
        fit = load_model(model, tensors, source=checkpoint)
        with isolated_rng(seed):
            mask = model.draw_mask(batch.cpu()).to(device)
        view = view_distillation(model.to(device), batch, mask, input_format=input_format)
    else:
        fit = load_backbone(model, tensors, source=checkpoint)
        view = view_backbone(model.to(device), batch, input_format=input_format)
    height, width = images.pictures.shape[1:3]
    view.notes.insert(
        0,
        f'{len(images.paths)} of {images.total} images of {folder}, short side resized to '
        f'{max(height, width)} px, then a centre crop of {height} x {width}.',
    )
    draw_view(view, path, title=f'{checkpoint} ({type(model).__name__})')
    return Visualization(path=path, fit=fit, images=images, notes=tuple(view.notes))


def _build(config: Config, backbone_only: bool) -> nn.Module:
    """The HGKD model, or the bare backbone of any other."""
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(config.model.get('type', ''))
        if kind is None:
            raise ValueError(
                f'{scope} knows no model.type={config.model.get("type")!r}: name the package that '
                'registers it in custom_imports of the config.'
            )
        if backbone_only or not (isinstance(kind, type) and issubclass(kind, HGKD)):
            return MODELS.build(config.model.backbone)
        model = config.model.copy()
        model.setdefault('data_preprocessor', config.get('data_preprocessor'))
        return MODELS.build(model)


def _picture_path(out: Path, checkpoint: str) -> Path:
    if not out.suffix or out.is_dir():
        return out / f'{Path(checkpoint).stem}.png'
    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix[1:].lower() not in known:
        raise ValueError(
            f'A picture cannot be written as {out.suffix} ({out}): choose a name in '
            f'{", ".join("." + name for name in sorted(known))}, or a folder.'
        )
    return out
