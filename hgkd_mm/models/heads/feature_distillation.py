"""Final features of a contrastive or supervised teacher, for a transformer student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import TeacherOutput, TransformerOutput
from ..teachers.tokens import take
from .base import DistillHead, at_least_float32, check_token_grid

CRITERIA = ('smooth_l1', 'mse', 'cosine')


@MODELS.register_module()
class FeatureDistillationHead(DistillHead):
    r"""Distance between a student's and a teacher's last tokens, as in Feature-Distillation.

    .. math::
        L_\mathrm{fd} = \frac{1}{|K|} \sum_{i \in K} D\bigl( P(s_i), N(t_i) \bigr)

    over the tokens K that the student kept, with the linear projection P to the teacher's width
    and the non-affine LayerNorm N (eps 1e-6).

    Stated: the student imitates the final feature map of the supervised or contrastive teacher
    (Hybrid Distill, ICLR abstract). Inferred: P, N and D, which are those of
    Feature-Distillation's code (Wei et al. 2022; docs/sources.md 2.4): smooth L1 with beta 2,
    class token included.

    Args:
        teacher: name of the teacher.
        in_channels: width of the student.
        embed_dim: width of the teacher's tokens.
        criterion: 'smooth_l1', 'mse', or 'cosine', 1 - cosine similarity.
        beta: where smooth L1 turns from square to linear.
        target_norm: False imitates the tokens as they are.
        with_cls: the class token counts as one of the tokens.
        weight: factor of the term: alpha, 1 in Hybrid Distill (stated, by a review).
        init_cfg: of the projection; truncated normal of std .02 by default.

    Raises:
        ValueError: unknown ``criterion``, or a beta that is not positive.
    """

    reads_decoded = False
    reads = TransformerOutput

    def __init__(
        self,
        *,
        teacher: str,
        in_channels: int,
        embed_dim: int,
        criterion: str = 'smooth_l1',
        beta: float = 2.0,
        target_norm: bool = True,
        with_cls: bool = True,
        weight: float = 1.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            teacher=teacher,
            weight=weight,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02),
        )
        if criterion not in CRITERIA:
            raise ValueError(
                f'criterion of FeatureDistillationHead is {criterion!r}, expected one of '
                f'{list(CRITERIA)}.'
            )
        if beta <= 0:
            raise ValueError(f'beta of FeatureDistillationHead is {beta}, expected more than 0.')
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.criterion = criterion
        self.beta = beta
        self.target_norm = target_norm
        self.with_cls = with_cls
        self.project = nn.Linear(in_channels, embed_dim)

    def check(
        self,
        key: str,
        *,
        neck: nn.Module | None,
        teacher: nn.Module | None,
        backbone: nn.Module | None = None,
    ) -> None:
        """See :meth:`DistillHead.check`."""
        check_token_grid(key, backbone=backbone, teacher=teacher, name=self.teacher)
        widths = {
            'in_channels': (self.in_channels, backbone.embed_dims, 'the student'),
            'embed_dim': (self.embed_dim, teacher.embed_dim, f"teacher '{self.teacher}'"),
        }
        for name, (own, there, where) in widths.items():
            if own != there:
                raise ValueError(
                    f'{key}.{name} is {own}, but the tokens of {where} have {there} channels: set '
                    f'{key}.{name}={there}.'
                )
        if self.with_cls and not (teacher.has_cls and backbone.cls_token is not None):
            raise ValueError(
                f"{key}.with_cls needs a class token in the student and in teacher '{self.teacher}'"
                f', one of which has none: set {key}.with_cls=False.'
            )

    def forward(self, student: TransformerOutput, teacher: TeacherOutput) -> Tensor:
        """See :meth:`DistillHead.forward`."""
        target = teacher.tokens.flatten(2).transpose(1, 2)
        if student.index is not None:
            target = take(target, student.index)
        tokens = student.tokens
        if self.with_cls:
            target = torch.cat([teacher.cls.unsqueeze(1), target], dim=1)
            tokens = torch.cat([student.cls.unsqueeze(1), tokens], dim=1)
        return self.distance(at_least_float32(self.project(tokens)), self.target(target))

    def target(self, tokens: Tensor) -> Tensor:
        """What is imitated of a teacher's tokens (B, n, D): they themselves, normalised."""
        tokens = at_least_float32(tokens)
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) if self.target_norm else tokens

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean distance of (B, n, D) predictions to as many targets."""
        if self.criterion == 'cosine':
            return 1 - F.cosine_similarity(predicted, target, dim=-1).mean()
        if self.criterion == 'mse':
            return F.mse_loss(predicted, target)
        return F.smooth_l1_loss(predicted, target, beta=self.beta)
