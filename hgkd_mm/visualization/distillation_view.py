"""Teacher beside student: what each head of an HGKD model compares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hgkd_mm.evaluation.features import eval_mode
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

from .images import hide_cells
from .input_format import InputFormat
from .pca import FeaturePCA
from .view import Distributions, Pictures, View

Compared = tuple[StudentOutput, dict[str, TeacherOutput]]

_ON_MASKED = {
    'full': 'teacher sees\nthe whole image',
    'visible': 'teacher sees\nthe visible cells',
    'mim': 'teacher guesses\nfrom visible cells',
}


def view_distillation(
    model: HGKD, images: Tensor, mask: CellMask, *, input_format: InputFormat
) -> View:
    """Columns for the images, the mask and each head, with the model in eval mode.

    - ``PixelReconstructionHead``: the images with hidden cells from the prediction.
    - ``FeatureImitationHead``: teacher's tokens as normalised for the loss, and the student's
      guess at them, of the masked and of the whole images; all by the principal components
      of the teacher's.
    - ``SimilarityDistributionHead``: both distributions over its queue, of the masked images.

    Args:
        model: the model, on the images' device.
        images: (B, 3, H, W) normalised.
        mask: which cells the student sees.
        input_format: how they are normalised.

    Raises:
        ValueError: sizes do not fit, or there is too little to find three components in.
    """
    with eval_mode(model), torch.no_grad():
        masked = model.compare(images, mask)
        everything = CellMask.full(batch=mask.batch, grid=mask.grid, device=mask.device)
        whole = model.compare(images, everything)
        view = _input_columns(images, mask, input_format)
        for name, head in model.heads.items():
            if isinstance(head, PixelReconstructionHead):
                _add_reconstruction(view, name, head, masked, input_format)
            elif isinstance(head, FeatureImitationHead):
                sees = model.teachers[head.teacher].teacher_view
                _add_features(view, name, head, masked, whole, sees)
            elif isinstance(head, SimilarityDistributionHead):
                _add_similarities(view, name, head, masked)
            else:
                view.notes.append(f"Of head '{name}' ({type(head).__name__}) there is no picture.")
    return view


def _input_columns(images: Tensor, mask: CellMask, input_format: InputFormat) -> View:
    pictures = input_format.restore(images)
    hidden = hide_cells(pictures, mask.visible)
    rows, columns = mask.grid
    per_image = mask.num_visible / mask.batch
    return View(
        columns=[
            Pictures(group='input', title='image', pictures=pictures),
            Pictures(group='input', title='what the\nstudent sees', pictures=hidden),
        ],
        notes=[f'The student sees {per_image:g} of {rows * columns} cells.'],
    )


def _add_reconstruction(
    view: View,
    name: str,
    head: PixelReconstructionHead,
    masked: Compared,
    input_format: InputFormat,
) -> None:
    group = f"head '{name}': reconstruction"
    filled, original = (
        input_format.restore(images) for images in (head.fill_in(masked[0]), masked[0].images)
    )
    view.columns += [
        Pictures(
            group=group, title='hidden cells predicted,\ntrue mean and contrast', pictures=filled
        ),
        Pictures(group=group, title='original', pictures=original),
    ]
    view.notes.append(
        'Predicted cells are pasted into the image; each is given the mean and contrast of the '
        'true cell, since the network predicts standardised pixels.'
    )


def _add_features(
    view: View,
    name: str,
    head: FeatureImitationHead,
    masked: Compared,
    whole: Compared,
    sees: str,
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

    def column(
        title: str, features: Tensor, valid: Tensor, reference: Tensor | None = None
    ) -> Pictures:
        return Pictures(
            group=f"head '{name}': features of teacher '{head.teacher}'",
            title=title,
            pictures=components.to_rgb(features, valid=valid),
            captions=() if reference is None else _agreement(features, reference, valid),
        )

    view.columns.append(column(_ON_MASKED[sees], target, valid))
    view.columns.append(column('student sees\nthe visible cells', guess, valid, target))
    if sees != 'full':  # to which the mask makes no difference
        view.columns.append(column('teacher sees\nthe whole image', whole_target, whole_valid))
    view.columns.append(
        column('student sees\nthe whole image', whole_guess, whole_valid, whole_target)
    )
    note = (
        'Features: the first three principal components of the teacher as red, green and blue, '
        'for the student as well, so equal colours are equal features; grey: nothing to imitate. '
        'cos: mean cosine of student and teacher over the tokens.'
    )
    if note not in view.notes:
        view.notes.append(note)


def _agreement(features: Tensor, reference: Tensor, valid: Tensor) -> list[str]:
    cosine = F.cosine_similarity(features, reference, dim=1)
    counts = valid.sum((1, 2)).clamp(min=1)
    means = torch.where(valid, cosine, 0.0).sum((1, 2)) / counts
    return [f'cos {round(value, 2) + 0.0:.2f}' for value in means.tolist()]  # + 0: no -0.00


def _add_similarities(
    view: View, name: str, head: SimilarityDistributionHead, masked: Compared
) -> None:
    student, targets = masked
    p_s, p_t = head.distributions(student, targets[head.teacher])
    if p_s.shape[1] < 2:
        view.notes.append(
            f"Head '{name}': its queue is empty in this checkpoint, as before any training, so "
            'there are no similarities to show.'
        )
        return
    view.columns.append(
        Distributions(
            group=f"head '{name}': queue of teacher '{head.teacher}'",
            title=f'similarity to {p_s.shape[1]} entries,\nsorted by what the teacher says',
            teacher=p_t.cpu().double().numpy(),
            student=p_s.cpu().double().numpy(),
            correlation=pearson(p_s, p_t).cpu().double().numpy(),
        )
    )
    view.notes.append(
        'Similarity: the softmax that the loss compares, of the visible cells, 1 = as similar as '
        'the average entry; the closer orange follows blue, the better. Band: the middle 80 % of '
        'the student among entries of like rank; r: Pearson correlation over all entries.'
    )
