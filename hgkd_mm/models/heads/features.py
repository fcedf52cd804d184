"""Imitation of a teacher's features, by a CNN (L_feat of H-GKD) and by a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import StudentOutput, TeacherOutput, TransformerOutput
from ..teachers.base import one_of
from ..tokens import take
from .base import DistillHead, Partners, at_least_float32, project_to_grid
from .whitening import Whitening, read_target_norm

CRITERIA = ('smooth_l1', 'mse', 'cosine')
NORMS = ('layer_norm', 'whiten', None)


class FeatureHead(DistillHead):
    """A projection of the student's features and a normalization of the teacher's.

    Args:
        project: layer from the student's width to the teacher's.
        embed_dim: width D of the teacher's tokens.
        target_norm: 'layer_norm' (non-affine LayerNorm over channels, eps 1e-6), 'whiten'
            (:class:`Whitening`), or None for raw tokens. ``dict(type='whiten', rank=64)``
            keeps the 64 directions in which the tokens differ most: the last ones hold detail
            that a student cannot foresee, and whitening gives each as much weight as the first.
            Whitening is for teachers whose tokens are nearly equal (cosine .9 and more, as in a
            MAE that was trained briefly): the part they share is learned in a few steps, and
            their differences are lost in the mean. It costs an eigendecomposition a step.
        head: arguments of :class:`DistillHead`, as in the heads below.

    Raises:
        ValueError: unknown ``target_norm``, or a rank out of range.
    """

    def __init__(
        self,
        *,
        project: nn.Module,
        embed_dim: int,
        target_norm: str | dict | None,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        kind, rank = read_target_norm(
            target_norm, known=NORMS, dim=embed_dim, key=f'target_norm of {type(self).__name__}'
        )
        self.embed_dim = embed_dim
        self.target_norm = kind
        self.project = project
        self.whitening = Whitening(embed_dim, rank=rank) if kind == 'whiten' else None

    def follow(self, tokens: Tensor, counted: Tensor | None = None) -> None:
        """While training, takes tokens (..., D) into the statistics of a whitening.

        Args:
            tokens: of the teacher.
            counted: (...) bool, which of them exist; all if None.
        """
        if self.whitening is not None and self.training:
            if counted is None:
                counted = torch.ones_like(tokens[..., 0], dtype=torch.bool)
            self.whitening.update(tokens.flatten(0, -2), counted.flatten())

    def normalized(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) as they are imitated, at least float32."""
        tokens = at_least_float32(tokens)
        if self.whitening is not None:
            return self.whitening(tokens.flatten(0, -2)).view(tokens.shape)
        if self.target_norm is None:
            return tokens
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


@MODELS.register_module()
class FeatureImitationHead(FeatureHead):
    r"""Mean squared error between decoder features and teacher tokens.

    .. math::
        L_\mathrm{feat} = \frac{1}{|\Omega| D} \sum_{i \in \Omega}
            \lVert P(u)_i - N(t_i) \rVert^2

    with the decoded map :math:`u` resized to the teacher's token grid, the 1x1 projection
    :math:`P` to the teacher's width :math:`D`, teacher tokens :math:`t`, their normalization
    :math:`N`, and the set :math:`\Omega` of positions of the batch that count. If it is empty
    the loss is zero.

    Stated: "the MSE loss between features of the teacher and the student" (H-GKD Fig. 4).
    Inferred: everything else (docs/sources.md 1.4 eq. 4), hence the knobs. The mean over
    channels is what "MSE" means in the common libraries; it also keeps the term of the
    order of 1, beside L_sim which lies in [0, 2]. A decoded map finer than the token grid is
    averaged over each token, a coarser one interpolated.

    Args:
        in_channels: channels of the decoded map; derived in a model.
        embed_dim: width D of the teacher's tokens; derived in a model.
        positions: which tokens count, of those that the teacher computed: 'all', the
            'masked' or the 'visible' ones. Inferred default 'all': Feature-Distillation and
            G2SD imitate every token, and a visible position of a CNN has no shortcut to a
            transformer's feature of it.
        target_norm: see :class:`FeatureHead`. Inferred default 'layer_norm': G2SD and
            Feature-Distillation both normalize so (docs/sources.md 1.3d), since a few channels
            of a ViT with a hundredfold magnitude would dominate the MSE.

    Raises:
        ValueError: unknown ``positions`` or ``target_norm``.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        embed_dim: int,
        positions: str = 'all',
        target_norm: str | dict | None = 'layer_norm',
        **head: Any,
    ) -> None:
        one_of('positions of FeatureImitationHead', positions, ('all', 'masked', 'visible'))
        super().__init__(
            project=nn.Conv2d(in_channels, embed_dim, 1),
            embed_dim=embed_dim,
            target_norm=target_norm,
            **head,
        )
        self.positions = positions

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        return {
            'in_channels': partners.decoder.out_channels,
            'embed_dim': partners.teacher.embed_dim,
        }

    def check(self, partners: Partners) -> None:
        if self.positions == 'masked' and partners.teacher.teacher_view == 'visible':
            raise ValueError(
                f"{partners.key}.positions='masked' asks for tokens that teacher "
                f"'{self.teacher}' never computes: with teacher_view='visible' it drops the hidden "
                f"cells. Set {partners.key}.positions to 'all' or 'visible', or teacher_view to "
                "'full' or 'mim'."
            )

    def forward(self, student: StudentOutput, teacher: TeacherOutput) -> Tensor:
        grid = tuple(teacher.tokens.shape[2:])
        predicted = at_least_float32(self.predict(student.decoded, grid))
        self.follow(teacher.tokens.permute(0, 2, 3, 1), teacher.valid)
        error = F.mse_loss(predicted, self.target(teacher), reduction='none').mean(1)
        counted = self._counted(student, teacher.valid, grid)
        return torch.where(counted, error, 0.0).sum() / counted.sum().clamp(min=1)

    def target(self, teacher: TeacherOutput) -> Tensor:
        """The teacher's tokens, normalized: (B, D, gh, gw), at least float32."""
        return self.normalized(teacher.tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def predict(self, decoded: Tensor, grid: tuple[int, int]) -> Tensor:
        """The prediction of :meth:`target`, (B, D, gh, gw), from a decoded map (B, C, h, w)."""
        return project_to_grid(decoded, self.project, grid, teacher=self.teacher)

    def _counted(self, student: StudentOutput, valid: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.positions == 'all':
            return valid
        visible = student.mask.at(grid)
        return valid & (visible if self.positions == 'visible' else ~visible)


@MODELS.register_module()
class FeatureDistillationHead(FeatureHead):
    r"""Distance between a student's and a teacher's last tokens, as in Feature-Distillation.

    .. math::
        L_\mathrm{fd} = \frac{1}{|K|} \sum_{i \in K} D\bigl( P(s_i), N(t_i) \bigr)

    over the tokens K that the student kept, with the linear projection P to the teacher's width
    and the normalization N.

    Stated: the student imitates the final feature map of the supervised or contrastive teacher
    (Hybrid Distill, ICLR abstract). Inferred: P, N and D, which are those of
    Feature-Distillation's code (Wei et al. 2022; docs/sources.md 2.4): LayerNorm, smooth L1 with
    beta 2, class token included.

    Args:
        in_channels: width of the student; derived in a model.
        embed_dim: width of the teacher's tokens; derived in a model.
        criterion: 'smooth_l1', 'mse', or 'cosine', 1 - cosine similarity.
        beta: where smooth L1 turns from square to linear.
        target_norm: see :class:`FeatureHead`.
        with_cls: the class token counts as one of the tokens.
        head: arguments of :class:`DistillHead`; ``weight`` is alpha, 1 in Hybrid Distill (stated,
            by a review).

    Raises:
        ValueError: unknown ``criterion`` or ``target_norm``.
    """

    reads = 'tokens'

    def __init__(
        self,
        *,
        in_channels: int,
        embed_dim: int,
        criterion: str = 'smooth_l1',
        beta: float = 2.0,
        target_norm: str | dict | None = 'layer_norm',
        with_cls: bool = True,
        **head: Any,
    ) -> None:
        one_of('criterion of FeatureDistillationHead', criterion, CRITERIA)
        super().__init__(
            project=nn.Linear(in_channels, embed_dim),
            embed_dim=embed_dim,
            target_norm=target_norm,
            **head,
        )
        self.criterion = criterion
        self.beta = beta
        self.with_cls = with_cls

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        return {
            'in_channels': partners.transformer.embed_dims,
            'embed_dim': partners.teacher.embed_dim,
        }

    def check(self, partners: Partners) -> None:
        partners.check_token_grid()
        both = partners.teacher.has_cls and partners.transformer.cls_token is not None
        if self.with_cls and not both:
            raise ValueError(
                f'{partners.key}.with_cls needs a class token in the student and in teacher '
                f"'{self.teacher}', one of which has none: set {partners.key}.with_cls=False."
            )

    def forward(self, student: TransformerOutput, teacher: TeacherOutput) -> Tensor:
        target = teacher.tokens.flatten(2).transpose(1, 2)
        if student.index is not None:
            target = take(target, student.index)
        tokens = student.tokens
        if self.with_cls:
            target = torch.cat([teacher.cls.unsqueeze(1), target], dim=1)
            tokens = torch.cat([student.cls.unsqueeze(1), tokens], dim=1)
        self.follow(target)
        return self.distance(at_least_float32(self.project(tokens)), self.normalized(target))

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean distance of (B, n, D) predictions to as many targets."""
        if self.criterion == 'cosine':
            return 1 - F.cosine_similarity(predicted, target, dim=-1).mean()
        if self.criterion == 'mse':
            return F.mse_loss(predicted, target)
        return F.smooth_l1_loss(predicted, target, beta=self.beta)
