"""What a network computes for some images, as a picture and as its columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from hgkd_mm.evaluation import eval_mode, isolated_rng
from hgkd_mm.models import (
    HGKD,
    FeatureImitationHead,
    PixelReconstructionHead,
    SimilarityDistributionHead,
    StudentOutput,
    TeacherOutput,
)
from hgkd_mm.models.heads.similarity_distribution import pearson
from hgkd_mm.sparse import CellMask

from .figure import HIDDEN, FeaturePCA, PictureColumn, SimilarityColumn, draw_columns
from .images import InputFormat, Size, load_folder_images, training_size
from .networks import is_hgkd, load_student

Compared = tuple[StudentOutput, Mapping[str, TeacherOutput]]


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
        count: number of images.
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


def backbone_columns(
    backbone: nn.Module, images: Tensor, *, input_format: InputFormat
) -> list[PictureColumn]:
    """Images, (B, 3, H, W) normalized, and each map of a backbone in eval mode.

    Each map has principal components of its own, shared by the images.

    Raises:
        ValueError: the backbone's outputs are not (B, C, h, w), or C or the maps are too small.
    """
    with eval_mode(backbone), torch.no_grad():
        output = backbone(images)
    columns = [PictureColumn(title='image', pictures=input_format.restore(images))]
    for index, features in enumerate(output if isinstance(output, list | tuple) else [output]):
        if not isinstance(features, Tensor) or features.dim() != 4:
            shape = tuple(getattr(features, 'shape', ()))
            raise ValueError(
                f'Output {index} of {type(backbone).__name__} is a {type(features).__name__} '
                f'{shape}, expected a (B, C, h, w) map. For a vision transformer of mmpretrain: '
                '--cfg-options model.backbone.out_type=featmap'
            )
        _, channels, height, width = features.shape
        title = f'map {index}, {height} x {width},\n{channels} channels'
        pictures = FeaturePCA(features).to_rgb(features)
        columns.append(PictureColumn(title=title, pictures=pictures))
    return columns


def distillation_columns(
    model: HGKD, images: Tensor, mask: CellMask, *, input_format: InputFormat
) -> list[PictureColumn | SimilarityColumn]:
    """The images, the mask, and what each head of an HGKD model compares, in eval mode.

    Features are the teacher's tokens as normalized for the loss and the student's prediction of
    them, in the principal components of the teacher's; similarities are those of masked images.

    Args:
        model: on the device of the images and of the mask.
        images: (B, 3, H, W) normalized.
        mask: visible cells.
        input_format: of the images.
    """
    pictures, (rows, columns) = input_format.restore(images), mask.grid
    visible = mask.at(pictures.shape[1:3]).cpu().numpy()[..., None]
    seen = f'student sees\n{mask.num_visible / mask.batch:g} of {rows * columns} cells'
    shown: list[PictureColumn | SimilarityColumn] = [
        PictureColumn(title='image', pictures=pictures),
        PictureColumn(title=seen, pictures=np.where(visible, pictures, np.uint8(HIDDEN))),
    ]
    with eval_mode(model), torch.no_grad():
        masked = model.compare(images, mask)
        everything = CellMask.full(batch=mask.batch, grid=mask.grid, device=mask.device)
        whole = model.compare(images, everything)
        for name, head in model.heads.items():
            if isinstance(head, PixelReconstructionHead):
                filled = input_format.restore(head.fill_in(masked[0]))
                shown.append(PictureColumn(title=f'{name}:\nhidden cells filled', pictures=filled))
            elif isinstance(head, FeatureImitationHead):
                view = model.teachers[head.teacher].teacher_view
                shown += _feature_columns(name, head, masked, whole, view)
            elif isinstance(head, SimilarityDistributionHead):
                shown += _similarity_columns(name, head, masked)
            else:
                print_log(f"Head '{name}' ({type(head).__name__}) has no picture.")
    return shown


def _feature_columns(
    name: str, head: FeatureImitationHead, masked: Compared, whole: Compared, view: str
) -> list[PictureColumn]:
    found = [_imitation(head, compared) for compared in (masked, whole)]
    targets, _, valid = (torch.cat(parts) for parts in zip(*found, strict=True))
    components = FeaturePCA(targets, valid=valid)
    views = ((view, 'visible cells'), ('full', 'full image'))
    columns, of = [], f'{name}, {head.teacher}'
    for (target, guess, valid), (teacher_view, seen) in zip(found, views, strict=True):
        columns += [
            PictureColumn(
                title=f'{of}:\nteacher, {teacher_view}',
                pictures=components.to_rgb(target, valid=valid),
            ),
            PictureColumn(
                title=f'{of}:\nstudent, {seen}',
                pictures=components.to_rgb(guess, valid=valid),
                captions=_agreement(guess, target, valid),
            ),
        ]
    if view == 'full':  # the mask makes no difference to the teacher
        del columns[2]
    return columns


def _imitation(head: FeatureImitationHead, compared: Compared) -> tuple[Tensor, Tensor, Tensor]:
    """Target and prediction, (B, D, h, w), and the positions that have a target, (B, h, w)."""
    student, teachers = compared
    target = head.target(teachers[head.teacher])
    guess = head.predict(student.decoded, tuple(target.shape[2:]))
    return target, guess, teachers[head.teacher].valid


def _agreement(features: Tensor, reference: Tensor, valid: Tensor) -> list[str]:
    cosine = F.cosine_similarity(features, reference, dim=1)
    counts = valid.sum((1, 2)).clamp(min=1)
    means = torch.where(valid, cosine, 0.0).sum((1, 2)) / counts
    return [f'cos {value:.2f}' for value in means.tolist()]


def _similarity_columns(
    name: str, head: SimilarityDistributionHead, masked: Compared
) -> list[SimilarityColumn]:
    student, teachers = masked
    p_s, p_t = head.distributions(student, teachers[head.teacher])
    if p_s.shape[1] < 2:
        print_log(f"Head '{name}' has no picture: its queue is empty in this checkpoint.")
        return []
    column = SimilarityColumn(
        title=f"{name}, {head.teacher}:\n{p_s.shape[1]} entries\nby the teacher's rank",
        teacher=p_t.cpu().double().numpy(),
        student=p_s.cpu().double().numpy(),
        correlation=pearson(p_s, p_t).tolist(),
    )
    return [column]
