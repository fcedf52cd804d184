"""Token relations of a masked-image-modeling teacher, imitated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import QKV, LayerTokens, StudentOutput, TeacherOutput, TransformerOutput
from ..qkv import layers_from_zero
from .base import DistillHead, Partners, at_least_float32, project_to_grid


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
        teacher_layers: blocks of the teacher, a vision transformer, from 0, or from -1 backwards.
        student_layers: blocks of a transformer student, as many; None for a CNN student.
        in_channels: channels of a CNN student's decoded map; derived in a model.
        embed_dim: width of a CNN student's queries, keys and values; in a model that of the
            teacher by default.
        relations: pairs of 'q', 'k' and 'v'. Inferred default QK and VV, TinyMIM's.
        num_heads: relation heads; None for those of the teacher. Where a network has others,
            its channels are split anew.
        with_cls: class tokens take part, where both networks have one (TinyMIM's choice). Not
            for CNN students.
        head: arguments of :class:`DistillHead`; ``weight`` is beta, 1 in Hybrid Distill (stated, by
            a review).

    Raises:
        ValueError: other numbers of layers, an unknown relation, or a class token of a CNN.
    """

    def __init__(
        self,
        *,
        teacher_layers: Sequence[int],
        student_layers: Sequence[int] | None = None,
        in_channels: int | None = None,
        embed_dim: int | None = None,
        relations: Sequence[str] = ('qk', 'vv'),
        num_heads: int | None = None,
        with_cls: bool = False,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        if student_layers is not None and len(student_layers) != len(teacher_layers):
            raise ValueError(
                'TokenRelationHead compares layers one by one; got student_layers='
                f'{list(student_layers)} and teacher_layers={list(teacher_layers)}.'
            )
        if student_layers is None and with_cls:
            raise ValueError('with_cls of TokenRelationHead is True, but a CNN has no class token.')
        if any(len(pair) != 2 or set(pair) - set('qkv') for pair in relations):
            raise ValueError(
                f'relations of TokenRelationHead are {list(relations)}, expected pairs of '
                "'q', 'k' and 'v' such as 'qk' and 'vv'."
            )
        self.reads = 'decoded' if student_layers is None else 'layers'
        self.teacher_layers = tuple(teacher_layers)
        self.student_layers = None if student_layers is None else tuple(student_layers)
        self.embed_dim = embed_dim
        self.relations = tuple(relations)
        self.num_heads = num_heads
        self.with_cls = with_cls
        self.projections = nn.ModuleList()
        if student_layers is None:
            self.projections.extend(
                nn.Conv2d(in_channels, 3 * embed_dim, 1) for _ in teacher_layers
            )

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        if given.get('student_layers') is not None:
            return {}
        derived = {'in_channels': partners.decoder.out_channels}
        if given.get('embed_dim') is None:
            derived['embed_dim'] = partners.teacher.embedding_dim
        return derived

    def check(self, partners: Partners) -> None:
        """Counts layers from 0, and refuses layers and widths that the networks lack."""
        key, teacher = partners.key, partners.teacher
        try:
            blocks = teacher.blocks()
        except TypeError as error:
            raise ValueError(f"{key} reads teacher '{self.teacher}': {error}") from error
        self.teacher_layers = layers_from_zero(
            self.teacher_layers, len(blocks), key=f'{key}.teacher_layers'
        )
        self.num_heads = self.num_heads or blocks[self.teacher_layers[0]].attn.num_heads
        widths = {f"teacher '{self.teacher}'": teacher.embedding_dim}
        if self.student_layers is None:
            widths[f'{key}.embed_dim'] = self.embed_dim
        else:
            self._check_transformer(partners)
            widths['the student'] = partners.transformer.embed_dims
        for what, width in widths.items():
            if width % self.num_heads:
                raise ValueError(
                    f'{self.num_heads} relation heads do not divide the width {width} of {what}: '
                    f'set {key}.num_heads.'
                )

    def _check_transformer(self, partners: Partners) -> None:
        partners.check_token_grid()
        key, student = partners.key, partners.transformer
        self.student_layers = layers_from_zero(
            self.student_layers, len(student.layers), key=f'{key}.student_layers'
        )
        prefixes = partners.teacher.prefix, student.num_extra_tokens
        if self.with_cls and prefixes != (1, 1):
            raise ValueError(
                f'{key}.with_cls needs one class token in both networks, teacher '
                f"'{self.teacher}' has {prefixes[0]} such tokens and the student {prefixes[1]}: "
                f'set {key}.with_cls=False.'
            )

    def forward(self, student: TransformerOutput | StudentOutput, teacher: TeacherOutput) -> Tensor:
        compare = self._of_map if self.student_layers is None else self._of_layers
        pairs = compare(student, teacher)
        return torch.stack([self.divergence(*pair) for pair in pairs]).mean()

    def divergence(self, student: QKV, teacher: QKV) -> Tensor:
        """Sum of the KL divergences of all relations between the same N tokens."""
        heads = self.num_heads or teacher.q.shape[1]
        terms = [
            relation_divergence(
                relation_logits(getattr(student, a), getattr(student, b), heads),
                relation_logits(getattr(teacher, a), getattr(teacher, b), heads),
            )
            for a, b in self.relations
        ]
        return torch.stack(terms).sum()

    def _of_layers(
        self, student: TransformerOutput, teacher: TeacherOutput
    ) -> Iterator[tuple[QKV, QKV]]:
        for ours, theirs in zip(self.student_layers, self.teacher_layers, strict=True):
            own, other = student.layers[ours], teacher.layers[theirs]
            yield (
                at_positions(own, None, with_cls=self.with_cls),
                at_positions(other, own.index, with_cls=self.with_cls),
            )

    def _of_map(self, student: StudentOutput, teacher: TeacherOutput) -> Iterator[tuple[QKV, QKV]]:
        grid = tuple(teacher.tokens.shape[2:])
        for project, theirs in zip(self.projections, self.teacher_layers, strict=True):
            other = teacher.layers[theirs]
            maps = project_to_grid(student.decoded, project, grid, teacher=self.teacher)
            tokens = maps.flatten(2).transpose(1, 2).unflatten(2, (3, 1, -1)).permute(2, 0, 3, 1, 4)
            own = LayerTokens(qkv=QKV(q=tokens[0], k=tokens[1], v=tokens[2]), prefix=0)
            # A teacher that sees visible cells only has rows for these alone.
            yield (
                at_positions(own, other.index, with_cls=False),
                at_positions(other, None, with_cls=False),
            )


def relation_logits(first: Tensor, second: Tensor, num_heads: int) -> Tensor:
    r"""Scaled products :math:`A B^\top / \sqrt d` of every pair of tokens, head by head.

    Args:
        first: (B, h, N, c), queries for example.
        second: (B, h, N, c), keys for example.
        num_heads: relation heads. If they are not h, all h * c channels are split anew, as
            MiniLMv2 does (arXiv 2012.15828, section 3.1).

    Returns:
        (B, num_heads, N, N), at least float32, under autocast too, with d = h * c / num_heads.
    """
    # Autocast would take the product in half precision again, where it is coarse or overflows.
    with torch.autocast(first.device.type, enabled=False):
        first, second = (_split(at_least_float32(x), num_heads) for x in (first, second))
        return first / math.sqrt(first.shape[3]) @ second.transpose(2, 3)


def relation_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    r""":math:`\mathrm{KL}(R^T \| R^S)`, summed over keys, mean over images, heads and queries.

    Relations R are the softmax over keys of the logits, (B, h, N, N).
    """
    # Of log-softmax, so that a relation that vanishes in half precision gives no infinity.
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(-1).mean()


def at_positions(tokens: LayerTokens, index: Tensor | None, *, with_cls: bool) -> QKV:
    """Queries, keys and values of the tokens at positions (B, n); of all if None.

    This takes rows and columns of the logits, so that relations among those that are left
    still sum to 1. With ``with_cls`` prefix tokens stay, in front.
    """

    def chosen(x: Tensor) -> Tensor:
        prefix, patches = x[:, :, : tokens.prefix], x[:, :, tokens.prefix :]
        if index is not None:
            where = index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
            patches = patches.gather(2, where)
        return torch.cat([prefix, patches], dim=2) if with_cls else patches

    q, k, v = (chosen(x) for x in (tokens.qkv.q, tokens.qkv.k, tokens.qkv.v))
    return QKV(q=q, k=k, v=v)


def _split(x: Tensor, num_heads: int) -> Tensor:
    """(B, h, N, c) to (B, num_heads, N, h * c / num_heads)."""
    if x.shape[1] == num_heads:
        return x
    return x.transpose(1, 2).flatten(2).unflatten(2, (num_heads, -1)).transpose(1, 2)
