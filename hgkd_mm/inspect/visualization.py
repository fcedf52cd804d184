"""From a config, a checkpoint and a folder of images to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hgkd_mm.evaluation import isolated_rng
from hgkd_mm.models import HGKD
from hgkd_mm.weights.fit import Fit

from .figure import draw_grid
from .fitted_weights import load_backbone, load_model, read_tensors
from .images import FolderImages, InputFormat, Size, load_folder_images, training_size
from .model_grids import backbone_grid, distillation_grid
from .networks import build_module, check_backbone


@dataclass(frozen=True, kw_only=True)
class Visualization:
    """A picture that was drawn, and its contents."""

    path: Path
    fit: Fit  # of the checkpoint
    images: FolderImages
    notes: tuple[str, ...]  # sentences below the picture


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
    """Draws what a network computes for some images of a folder.

    For an ``HGKD`` model it shows what each head compares (`distillation_grid`), for any other
    the maps of ``model.backbone`` (`backbone_grid`).

    Args:
        config: of the run that the checkpoint is from; of mmpretrain, mmdet or mmseg.
        checkpoint: path or address of the weights of the model or of its backbone.
        folder: with images, nested at will.
        out: picture to write, or a folder to write ``<checkpoint>.png`` into.
        count: of images.
        size: (H, W) that they are cropped to; by default that of training.
        seed: of the choice of images and of the mask, which is the same on every device.
        device: to compute on.
        backbone_only: treat an HGKD model as any other.
        trust_checkpoint: allow the checkpoint to run pickled code.

    Raises:
        OSError, RuntimeError, ValueError: an argument is wrong, before anything is written.
    """
    check_backbone(config)
    path = _picture_path(Path(out), checkpoint)
    input_format = InputFormat.of(config)
    images = load_folder_images(folder, count=count, size=size or training_size(config), seed=seed)
    tensors = read_tensors(checkpoint, trust_checkpoint=trust_checkpoint)
    batch = input_format.normalize(images.pictures).to(device)
    model = _build(config, backbone_only)
    if isinstance(model, HGKD):
        fit = load_model(model, tensors, source=checkpoint)
        with isolated_rng(seed):
            mask = model.draw_mask(batch.cpu()).to(device)
        grid = distillation_grid(model.to(device), batch, mask, input_format=input_format)
    else:
        fit = load_backbone(model, tensors, source=checkpoint)
        grid = backbone_grid(model.to(device), batch, input_format=input_format)
    grid.notes.insert(0, images.description())
    draw_grid(grid, path, title=f'{checkpoint} ({type(model).__name__})')
    return Visualization(path=path, fit=fit, images=images, notes=tuple(grid.notes))


def _build(config: Config, backbone_only: bool) -> nn.Module:
    """The HGKD model, or the bare backbone of any other."""
    if not backbone_only:
        scope = config.get('default_scope') or 'mmpretrain'
        with (
            DefaultScope.overwrite_default_scope(scope),
            MODELS.switch_scope_and_registry(None) as registry,
        ):
            kind = registry.get(config.model.get('type', ''))
        # an unknown type goes this way as well, and is refused
        if kind is None or (isinstance(kind, type) and issubclass(kind, HGKD)):
            preprocessor = config.get('data_preprocessor')
            settings = {'data_preprocessor': preprocessor, **config.model}
            return build_module(config, settings, key='model')
    return build_module(config, config.model.backbone, key='model.backbone')


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
