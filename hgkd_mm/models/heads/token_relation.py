"""Token relations of a masked-image-modeling teacher, imitated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import LayerTokens, StudentOutput, TeacherOutput, TransformerOutput
from ..qkv import QKV, check_numbers, layers_from_zero
from .base import DistillHead, check_decoder, check_token_grid
from .map_tokens import project_to_grid
from .relations import at_positions, relation_divergence, relation_logits


@MODELS.register_module()
class TokenRelationHead(DistillHead):
    r"""KL divergence between a teacher's and a student's token relations.

    .. math::
        L_\mathrm{rel} = \frac{1}{|\Lambda|} \sum_{l \in \Lambda} \sum_{(A, B)}
            \mathrm{KL}\Bigl( \sigma\bigl(\tfrac{A_l^T {B_l^T}^\top}{\sqrt{d_T}}\bigr) \Big\|
            \sigma\bigl(\tfrac{A_l^S {B_l^S}^\top}{\sqrt{d_S}}\bigr) \Bigr)

    with the softmax :math:`\sigma` over keys, the pairs (A, B) of ``relations``, and the mean
    over images, heads and queries inside KL.

    Stated: the student imitates the token relations of the MIM teacher at intermediate layers
    (Hybrid Distill, ICLR abstract). Inferred: the rest, from TinyMIM's code and MiniLMv2, which
    use the same relations (docs/sources.md 2.3); position biases of BEiT are left out.

    Of a transformer student it reads blocks. Tokens that the student dropped before a block are
    left out of the teacher's relations as well, rows and columns. Of a CNN student it reads the
    decoded map, from which 1x1 projections make queries, keys and values: relations need a token
    grid, no attention (ours; no paper does it).

    Args:
        teacher: name of the teacher, a vision transformer.
        teacher_layers: its blocks, from 0, or from -1 backwards.
        student_layers: blocks of a transformer student, as many; None for a CNN student.
        in_channels: channels of a CNN student's decoded map; None for a transformer student.
        embed_dim: width of a CNN student's queries, keys and values; needed with ``in_channels``.
        relations: pairs of 'q', 'k' and 'v'. Inferred default QK and VV, TinyMIM's.
        num_heads: relation heads; None for those of the teacher. Where a network has others,
            its channels are split anew.
        with_cls: class tokens take part, where both networks have one (TinyMIM's choice). Not
            for CNN students.
        weight: factor of the term: beta, 1 in Hybrid Distill (stated, by a review).
        init_cfg: of the projections; truncated normal of std .02 by default.

    Raises:
        ValueError: neither or both of ``student_layers`` and ``in_channels``, layers that are no
            numbers or not as many, fewer than one head, an unknown relation, or widths that the
            heads do not divide.
    """

    def __init__(
        self,
        *,
        teacher: str,
        teacher_layers: Sequence[int],
        student_layers: Sequence[int] | None = None,
        in_channels: int | None = None,
        embed_dim: int | None = None,
        relations: Sequence[str] = ('qk', 'vv'),
        num_heads: int | None = None,
        with_cls: bool = False,
        weight: float = 1.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            teacher=teacher,
            weight=weight,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Conv2d', std=0.02),
        )
        if num_heads is not None and num_heads < 1:
            raise ValueError(f'num_heads of TokenRelationHead is {num_heads}, expected 1 or more.')
        _check_arguments(teacher_layers, student_layers, in_channels, embed_dim, with_cls)
        unknown = [pair for pair in relations if len(pair) != 2 or set(pair) - set('qkv')]
        if unknown or not relations:
            raise ValueError(
                f'relations of TokenRelationHead are {list(relations)}, expected pairs of '
                "'q', 'k' and 'v' such as 'qk' and 'vv'."
            )
        self.teacher_layers = tuple(teacher_layers)
        self.student_layers = None if student_layers is None else tuple(student_layers)
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.relations = tuple(relations)
        self.num_heads = num_heads
        self.with_cls = with_cls
        self.reads_decoded = in_channels is not None
        self.reads_tokens = False
        self.reads = TransformerOutput if in_channels is None else StudentOutput
        self.projections = nn.ModuleList()
        if in_channels is not None:
            self.projections.extend(
                nn.Conv2d(in_channels, 3 * embed_dim, 1) for _ in teacher_layers
            )

    def check(
        self,
        key: str,
        *,
        neck: nn.Module | None,
        teacher: nn.Module | None,
        backbone: nn.Module | None = None,
    ) -> None:
        """See :meth:`DistillHead.check`; layers counted backwards are counted from 0 after it."""
        try:
            blocks = teacher.blocks()
        except TypeError as error:
            raise ValueError(f"{key} reads teacher '{self.teacher}': {error}") from error
        self.teacher_layers = layers_from_zero(
            self.teacher_layers, len(blocks), key=f'{key}.teacher_layers'
        )
        num_heads = self.num_heads or blocks[self.teacher_layers[0]].attn.num_heads
        widths = {f"teacher '{self.teacher}'": teacher.embedding_dim}
        if self.in_channels is not None:
            check_decoder(key, neck=neck, in_channels=self.in_channels)
            widths[f'{key}.embed_dim'] = self.embed_dim
        else:
            self._check_transformer(key, backbone, teacher)
            widths['the student'] = backbone.embed_dims
        for what, width in widths.items():
            if width % num_heads:
                raise ValueError(
                    f'{num_heads} relation heads do not divide the width {width} of {what}: set '
                    f'{key}.num_heads.'
                )
        self.num_heads = num_heads

    def _check_transformer(self, key: str, backbone: nn.Module, teacher: nn.Module) -> None:
        check_token_grid(key, backbone=backbone, teacher=teacher, name=self.teacher)
        self.student_layers = layers_from_zero(
            self.student_layers, len(backbone.layers), key=f'{key}.student_layers'
        )
        prefixes = teacher.prefix, backbone.num_extra_tokens
        if self.with_cls and prefixes != (1, 1):
            raise ValueError(
                f'{key}.with_cls needs one class token in both networks, teacher '
                f"'{self.teacher}' has {prefixes[0]} such tokens and the student {prefixes[1]}: "
                f'set {key}.with_cls=False.'
            )

    def forward(self, student: TransformerOutput | StudentOutput, teacher: TeacherOutput) -> Tensor:
        """See :meth:`DistillHead.forward`."""
        if self.in_channels is None:
            pairs = [
                self._of_blocks(student.layers[ours], teacher.layers[theirs])
                for ours, theirs in zip(self.student_layers, self.teacher_layers, strict=True)
            ]
        else:
            grid = tuple(teacher.tokens.shape[2:])
            pairs = [
                self._of_map(student.decoded, project, teacher.layers[theirs], grid)
                for project, theirs in zip(self.projections, self.teacher_layers, strict=True)
            ]
        return torch.stack([self.divergence(*pair) for pair in pairs]).mean()

    def divergence(self, student: QKV, teacher: QKV) -> Tensor:
        """Sum of the KL divergences of all relations between the same tokens.

        Args:
            student: (B, h, N, d) each.
            teacher: (B, h', N, d') each.
        """
        heads = self.num_heads or teacher.q.shape[1]
        terms = [
            relation_divergence(
                relation_logits(getattr(student, a), getattr(student, b), heads),
                relation_logits(getattr(teacher, a), getattr(teacher, b), heads),
            )
            for a, b in self.relations
        ]
        return torch.stack(terms).sum()

    def _of_blocks(self, student: LayerTokens, teacher: LayerTokens) -> tuple[QKV, QKV]:
        return (
            at_positions(student, None, with_cls=self.with_cls),
            at_positions(teacher, student.index, with_cls=self.with_cls),
        )

    def _of_map(
        self, decoded: Tensor, project: nn.Module, teacher: LayerTokens, grid: tuple[int, int]
    ) -> tuple[QKV, QKV]:
        maps = project_to_grid(decoded, project, grid, teacher=self.teacher)
        tokens = maps.flatten(2).transpose(1, 2).unflatten(2, (3, 1, -1)).permute(2, 0, 3, 1, 4)
        own = LayerTokens(qkv=QKV(q=tokens[0], k=tokens[1], v=tokens[2]), prefix=0)
        # A teacher that sees visible cells only has rows for these alone.
        return (
            at_positions(own, teacher.index, with_cls=False),
            at_positions(teacher, None, with_cls=False),
        )


def _check_arguments(
    teacher_layers: Sequence[int],
    student_layers: Sequence[int] | None,
    in_channels: int | None,
    embed_dim: int | None,
    with_cls: bool,
) -> None:
    check_numbers('teacher_layers of TokenRelationHead', teacher_layers)
    check_numbers('student_layers of TokenRelationHead', student_layers)
    if (student_layers is None) == (in_channels is None):
        raise ValueError(
            'TokenRelationHead reads either blocks of a transformer (student_layers) or the '
            f'decoded map of a CNN (in_channels); got student_layers={student_layers} and '
            f'in_channels={in_channels}.'
        )
    if not teacher_layers or (student_layers and len(student_layers) != len(teacher_layers)):
        raise ValueError(
            f'TokenRelationHead compares layers one by one; got student_layers={student_layers} '
            f'and teacher_layers={list(teacher_layers)}.'
        )
    if in_channels is not None and (embed_dim is None or with_cls):
        raise ValueError(
            'TokenRelationHead on a decoded map needs embed_dim, the width of its queries, keys '
            f'and values, and with_cls=False; got embed_dim={embed_dim}, with_cls={with_cls}.'
        )
