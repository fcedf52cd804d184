"""What a network computes for some images, as grids of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hgkd_mm.evaluation import eval_mode
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

from .figure import DistributionColumn, ImageGrid, PictureColumn, draw_grid
from .images import InputFormat, hide_cells
from .pca import FeaturePCA, match_colors, pca_to_rgb
from .scalars import Curve

Compared = tuple[StudentOutput, dict[str, TeacherOutput]]

_TEACHER_TITLES = {
    'full': 'teacher sees\nthe whole image',
    'visible': 'teacher sees\nthe visible cells',
    'mim': 'teacher guesses\nfrom visible cells',
}


def backbone_grid(backbone: nn.Module, images: Tensor, *, input_format: InputFormat) -> ImageGrid:
    """Images, (B, 3, H, W) normalized, and each map of a backbone in eval mode.

    Each map has principal components of its own, shared by the images; their colors are matched
    to those of the map before it.

    Raises:
        ValueError: the backbone's outputs are not (B, C, h, w), or C or the maps are too small.
    """
    with eval_mode(backbone), torch.no_grad():
        output = backbone(images)
    grid = ImageGrid(
        columns=[PictureColumn(group='input', title='image', pictures=input_format.restore(images))]
    )
    previous = None
    for index, features in enumerate(output if isinstance(output, list | tuple) else [output]):
        if not isinstance(features, Tensor) or features.dim() != 4:
            shape = tuple(getattr(features, 'shape', ()))
            raise ValueError(
                f'Output {index} of {type(backbone).__name__} is a {type(features).__name__} '
                f'{shape}, expected a (B, C, h, w) map. For a vision transformer of mmpretrain: '
                '--cfg-options model.backbone.out_type=featmap'
            )
        painted = pca_to_rgb(features)
        previous = painted if previous is None else match_colors(painted, previous)
        _, channels, height, width = features.shape
        grid.columns.append(
            PictureColumn(
                group=f'maps of {type(backbone).__name__}',
                title=f'{height} x {width},\n{channels} channels',
                pictures=previous,
            )
        )
    grid.notes.append(
        'Maps: the first three principal components of each map as red, green and blue, shared by '
        'all images.'
    )
    return grid


def distillation_grid(
    model: HGKD, images: Tensor, mask: CellMask, *, input_format: InputFormat
) -> ImageGrid:
    """The images, the mask, and what each head of an HGKD model compares, in eval mode.

    - ``PixelReconstructionHead``: the images with hidden cells from the prediction.
    - ``FeatureImitationHead``: the teacher's tokens as normalized for the loss, and the student's
      prediction of them, for the masked and for the whole images, all in the principal
      components of the teacher's.
    - ``SimilarityDistributionHead``: both distributions over its queue, for the masked images.

    Args:
        model: on the device of the images and of the mask.
        images: (B, 3, H, W) normalized.
        mask: visible cells.
        input_format: of the images.
    """
    with eval_mode(model), torch.no_grad():
        masked = model.compare(images, mask)
        everything = CellMask.full(batch=mask.batch, grid=mask.grid, device=mask.device)
        whole = model.compare(images, everything)
        grid = _input_grid(images, mask, input_format)
        for name, head in model.heads.items():
            if isinstance(head, PixelReconstructionHead):
                _add_reconstruction(grid, name, head, masked, input_format)
            elif isinstance(head, FeatureImitationHead):
                view = model.teachers[head.teacher].teacher_view
                _add_features(grid, name, head, masked, whole, view)
            elif isinstance(head, SimilarityDistributionHead):
                _add_similarities(grid, name, head, masked)
            else:
                grid.notes.append(f"Head '{name}' ({type(head).__name__}) has no picture.")
    grid.notes = list(dict.fromkeys(grid.notes))
    return grid


def _input_grid(images: Tensor, mask: CellMask, input_format: InputFormat) -> ImageGrid:
    pictures = input_format.restore(images)
    hidden = hide_cells(pictures, mask.visible)
    rows, columns = mask.grid
    return ImageGrid(
        columns=[
            PictureColumn(group='input', title='image', pictures=pictures),
            PictureColumn(group='input', title='what the\nstudent sees', pictures=hidden),
        ],
        notes=[f'The student sees {mask.num_visible / mask.batch:g} of {rows * columns} cells.'],
    )


def _add_reconstruction(
    grid: ImageGrid,
    name: str,
    head: PixelReconstructionHead,
    masked: Compared,
    input_format: InputFormat,
) -> None:
    student, _ = masked
    for title, images in (
        ('hidden cells predicted,\ntrue mean and contrast', head.fill_in(student)),
        ('original', student.images),
    ):
        group, pictures = f"head '{name}': reconstruction", input_format.restore(images)
        grid.columns.append(PictureColumn(group=group, title=title, pictures=pictures))
    grid.notes.append(
        'Predicted cells are pasted into the image; each is given the mean and contrast of the '
        'true cell, since the network predicts standardized pixels.'
    )


def _add_features(
    grid: ImageGrid,
    name: str,
    head: FeatureImitationHead,
    masked: Compared,
    whole: Compared,
    teacher_view: str,
) -> None:
    pairs = []
    for student, targets in (masked, whole):
        teacher = targets[head.teacher]
        target = head.target(teacher)
        guess = head.predict(student.decoded, tuple(target.shape[2:]))
        pairs.append((target, guess, teacher.valid))
    (target, guess, valid), (whole_target, whole_guess, whole_valid) = pairs
    components = FeaturePCA(
        torch.cat([target, whole_target]), valid=torch.cat([valid, whole_valid])
    )
    shown = [
        (_TEACHER_TITLES[teacher_view], target, valid, None),
        ('student sees\nthe visible cells', guess, valid, target),
        (_TEACHER_TITLES['full'], whole_target, whole_valid, None),
        ('student sees\nthe whole image', whole_guess, whole_valid, whole_target),
    ]
    if teacher_view == 'full':  # the mask makes no difference to the teacher
        del shown[2]
    for title, features, positions, reference in shown:
        captions = () if reference is None else _agreement(features, reference, positions)
        grid.columns.append(
            PictureColumn(
                group=f"head '{name}': features of teacher '{head.teacher}'",
                title=title,
                pictures=components.to_rgb(features, valid=positions),
                captions=captions,
            )
        )
    grid.notes.append(
        'Features: the first three principal components of the teacher as red, green and blue, '
        'for the student as well, so equal colors are equal features; grey: no target. cos: mean '
        'cosine of student and teacher over the tokens.'
    )


def _agreement(features: Tensor, reference: Tensor, valid: Tensor) -> list[str]:
    cosine = F.cosine_similarity(features, reference, dim=1)
    counts = valid.sum((1, 2)).clamp(min=1)
    means = torch.where(valid, cosine, 0.0).sum((1, 2)) / counts
    return [f'cos {round(value, 2) + 0.0:.2f}' for value in means.tolist()]  # + 0: no -0.00


def _add_similarities(
    grid: ImageGrid, name: str, head: SimilarityDistributionHead, masked: Compared
) -> None:
    student, targets = masked
    p_s, p_t = head.distributions(student, targets[head.teacher])
    if p_s.shape[1] < 2:
        grid.notes.append(
            f"Head '{name}': its queue is empty in this checkpoint, as before any training, so "
            'there are no similarities to show.'
        )
        return
    grid.columns.append(
        DistributionColumn(
            group=f"head '{name}': queue of teacher '{head.teacher}'",
            title=f"similarity to {p_s.shape[1]} entries,\nsorted by the teacher's",
            teacher=p_t.cpu().double().numpy(),
            student=p_s.cpu().double().numpy(),
            correlation=pearson(p_s, p_t).cpu().double().numpy(),
        )
    )
    grid.notes.append(
        'Similarity: the softmax that the loss compares, for the visible cells; 1 is the average '
        'entry; the closer orange follows blue, the better. Band: the middle 80 % of the student '
        'among entries of similar rank; r: Pearson correlation over all entries.'
    )


def draw_quickstart_figure(
    *,
    images: NDArray[np.uint8],
    visible: Tensor,
    teacher_tokens: Tensor,
    student_features: Tensor,
    curves: Mapping[str, Curve],
    path: str | Path,
    title: str = '',
) -> Path:
    """Draws images, masks, features of teacher and student as RGB, and loss curves.

    Both features are painted with the teacher's components, so equal colors are equal features.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        visible: (B, gh, gw) bool, True = visible.
        teacher_tokens: (B, D, h, w).
        student_features: (B, D, h', w').
        curves: title to curve; may be empty.
        path: file to write; its suffix names the format.
        title: line above it all.
    """
    components = FeaturePCA(teacher_tokens)
    columns = {
        'image': images,
        'what the student sees': hide_cells(images, visible),
        'teacher features': components.to_rgb(teacher_tokens),
        'student features': components.to_rgb(student_features),
    }
    grid = ImageGrid(
        columns=[PictureColumn(title=name, pictures=shown) for name, shown in columns.items()],
        curves=curves,
    )
    return draw_grid(grid, path, title=title)
