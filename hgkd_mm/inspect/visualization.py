"""From a config, a checkpoint and a folder of images to a picture."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from hgkd_mm.evaluation import isolated_rng

from .columns import backbone_columns, distillation_columns
from .figure import draw_columns
from .images import Size, load_folder_images, training_size
from .networks import is_hgkd, load_student


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
) -> Path:
    """Draws what a network computes for some images of a folder.

    For an ``HGKD`` model it shows what each head compares (`distillation_columns`), for any other
    the maps of ``model.backbone`` (`backbone_columns`).

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

    Returns:
        The picture.

    Raises:
        OSError, RuntimeError, ValueError: an argument is wrong; nothing is written.
    """
    images = load_folder_images(folder, count=count, size=size or training_size(config), seed=seed)
    whole = not backbone_only and is_hgkd(config)
    network, title, input_format = load_student(
        config, checkpoint, whole=whole, trust_checkpoint=trust_checkpoint
    )
    batch = input_format.normalize(images.pictures)
    shown = (network.to(device), batch.to(device))
    if whole:
        with isolated_rng(seed):
            mask = network.draw_mask(batch).to(device)
        columns = distillation_columns(*shown, mask, input_format=input_format)
    else:
        columns = backbone_columns(*shown, input_format=input_format)
    path = Path(out)
    if not path.suffix or path.is_dir():
        path = path / f'{Path(checkpoint).stem}.png'
    return draw_columns(columns, path, title=title)
