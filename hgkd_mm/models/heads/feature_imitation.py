"""L_feat: imitation of the teacher's patch features."""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import StudentOutput, TeacherOutput
from .base import DistillHead, at_least_float32, check_decoder
from .map_tokens import project_to_grid
from .whitening import Whitening


@MODELS.register_module()
class FeatureImitationHead(DistillHead):
    r"""Mean squared error between decoder features and teacher tokens.

    .. math::
        L_\mathrm{feat} = \frac{1}{|\Omega| D} \sum_{i \in \Omega}
            \lVert P(u)_i - N(t_i) \rVert^2

    with the decoded map :math:`u` resized to the teacher's token grid, the 1x1 projection
    :math:`P` to the teacher's width :math:`D`, teacher tokens :math:`t`, and the set
    :math:`\Omega` of positions of the batch that count. If it is empty the loss is zero.

    Stated: "the MSE loss between features of the teacher and the student" (H-GKD Fig. 4).
    Inferred: everything else (docs/sources.md 1.4 eq. 4), hence the knobs. The mean over
    channels is what "MSE" means in the common libraries; it also keeps the term of the
    order of 1, beside L_sim which lies in [0, 2]. A decoded map finer than the token grid is
    averaged over each token, a coarser one interpolated.

    Args:
        teacher: name of the teacher.
        in_channels: channels of the decoded map.
        embed_dim: width D of the teacher's tokens.
        positions: which tokens count, of those that the teacher computed: 'all', the
            'masked' or the 'visible' ones. Inferred default 'all': Feature-Distillation and
            G2SD imitate every token, and a visible position of a CNN has no shortcut to a
            transformer's feature of it.
        target_norm: 'layer_norm' (:math:`N` = non-affine LayerNorm over channels, eps 1e-6),
            'whiten' (:class:`Whitening`) or None (raw tokens). Inferred default
            'layer_norm': G2SD and Feature-Distillation both normalise so (docs/sources.md 1.3d),
            since a few channels of a ViT with a hundredfold magnitude would own the MSE.
            'whiten' is for teachers whose tokens are nearly equal to each other (cosine .9 and
            more, as in a MAE that was trained briefly): what they share is learned in a few
            steps, and what tells them apart is lost in the mean. It costs an
            eigendecomposition a step.
        whiten_rank: with 'whiten', imitate only so many directions, those in which the tokens
            differ most; all of them if None. The last ones hold detail that a student cannot
            foresee, and whitening gives each as much weight as the first.
        weight: factor of the term.
        init_cfg: of the projection; truncated normal of std .02 by default.

    Raises:
        ValueError: unknown ``positions`` or ``target_norm``, or a ``whiten_rank`` out of range
            or without 'whiten'.
    """

    def __init__(
        self,
        *,
        teacher: str,
        in_channels: int,
        embed_dim: int,
        positions: str = 'all',
        target_norm: str | None = 'layer_norm',
        whiten_rank: int | None = None,
        weight: float = 1.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            teacher=teacher,
            weight=weight,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Conv2d', std=0.02),
        )
        if positions not in ('all', 'masked', 'visible'):
            raise ValueError(
                f'positions of FeatureImitationHead is {positions!r}, expected '
                "'all', 'masked' or 'visible'."
            )
        if target_norm not in (None, 'layer_norm', 'whiten'):
            raise ValueError(
                f'target_norm of FeatureImitationHead is {target_norm!r}, expected '
                "'layer_norm', 'whiten' or None."
            )
        if whiten_rank is not None and target_norm != 'whiten':
            raise ValueError(
                f"whiten_rank={whiten_rank} of FeatureImitationHead needs target_norm='whiten', "
                f'got {target_norm!r}.'
            )
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.positions = positions
        self.target_norm = target_norm
        self.project = nn.Conv2d(in_channels, embed_dim, 1)
        self.whitening = Whitening(embed_dim, rank=whiten_rank) if target_norm == 'whiten' else None

    def check(
        self,
        key: str,
        *,
        neck: nn.Module | None,
        teacher: nn.Module | None,
        backbone: nn.Module | None = None,
    ) -> None:
        """See :meth:`DistillHead.check`."""
        check_decoder(key, neck=neck, in_channels=self.in_channels)
        if teacher.embed_dim != self.embed_dim:
            raise ValueError(
                f"{key}.embed_dim is {self.embed_dim}, but the tokens of teacher '{self.teacher}' "
                f'have {teacher.embed_dim} channels: set {key}.embed_dim={teacher.embed_dim}.'
            )
        if self.positions == 'masked' and teacher.teacher_view == 'visible':
            raise ValueError(
                f"{key}.positions='masked' asks for tokens that teacher '{self.teacher}' never "
                "computes: with teacher_view='visible' it drops the hidden cells. Set "
                f"{key}.positions to 'all' or 'visible', or teacher_view to 'full' or 'mim'."
            )

    def forward(self, student: StudentOutput, teacher: TeacherOutput) -> Tensor:
        """See :meth:`DistillHead.forward`.

        Raises:
            ValueError: the sizes of the decoded map and the token grid are not multiples
                of each other.
        """
        grid = tuple(teacher.tokens.shape[2:])
        predicted = at_least_float32(self.predict(student.decoded, grid))
        if self.whitening is not None and self.training:
            rows = teacher.tokens.permute(0, 2, 3, 1).flatten(0, 2)
            self.whitening.update(rows, teacher.valid.flatten())
        target = self.target(teacher)
        error = F.mse_loss(predicted, target, reduction='none').mean(1)
        counted = self._counted(student, teacher.valid, grid)
        return torch.where(counted, error, 0.0).sum() / counted.sum().clamp(min=1)

    def target(self, teacher: TeacherOutput) -> Tensor:
        """What is imitated: the teacher's tokens, normalised. (B, D, gh, gw), at least float32."""
        tokens = at_least_float32(teacher.tokens)
        if self.target_norm is None:
            return tokens
        rows = tokens.permute(0, 2, 3, 1)
        if self.target_norm == 'layer_norm':
            rows = F.layer_norm(rows, rows.shape[-1:], eps=1e-6)
        else:
            rows = self.whitening(rows.flatten(0, 2)).view(rows.shape)
        return rows.permute(0, 3, 1, 2)

    def predict(self, decoded: Tensor, grid: tuple[int, int]) -> Tensor:
        """The student's guess at :meth:`target`: its decoded map, projected, on the token grid.

        Args:
            decoded: (B, C, h, w).
            grid: (gh, gw) tokens.

        Returns:
            (B, D, gh, gw).

        Raises:
            ValueError: the two sizes are not multiples of each other.
        """
        return project_to_grid(decoded, self.project, grid, teacher=self.teacher)

    def _counted(self, student: StudentOutput, valid: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.positions == 'all':
            return valid
        visible = student.mask.at(grid)
        return valid & (visible if self.positions == 'visible' else ~visible)
