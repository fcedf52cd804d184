"""What students and teachers hand to the loss heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hgkd_mm.sparse import CellMask, SparseFeatureMap


@dataclass(frozen=True)
class QKV:
    """Queries, keys and values of one attention layer, for a batch.

    The logits are ``q @ k^T / sqrt(d) + bias``, whatever the layer multiplies its queries by.

    Attributes:
        q: (B, heads, N, d) queries of all N tokens, class and other prefix tokens first.
        k: (B, heads, N, d) keys.
        v: (B, heads, N, d) values.
        bias: (1 or B, heads, N, N), added to the logits (BEiT's relative positions), or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None = None

    def attention(self) -> Tensor:
        """(B, heads, N, N) of softmax(q k^T / sqrt(d) + bias); each row sums to 1."""
        logits = self.q @ self.k.transpose(-2, -1) * self.q.shape[-1] ** -0.5
        return (logits if self.bias is None else logits + self.bias).softmax(-1)


@dataclass
class LayerTokens:
    """Queries, keys and values inside one block of a vision transformer.

    Attributes:
        qkv: (B, heads, P + n, d) each: P class and register tokens, then n patch tokens.
        prefix: P.
        index: (B, n) long, positions of the patch tokens in raster order on the token grid; None
            if all are there, in order.
    """

    qkv: QKV
    prefix: int
    index: Tensor | None = None


@dataclass
class TeacherOutput:
    """Features of a frozen teacher for a batch of images.

    Attributes:
        tokens: (B, D, gh, gw) patch features on the teacher's token grid; zero where ``valid``
            is False.
        embedding: (B, E) one vector per image, not normalized.
        valid: (B, gh, gw) bool, True where ``tokens`` carries a feature. Only
            ``teacher_view='visible'`` has False entries.
        cls: (B, D) class token after the last norm; None for networks without.
        layers: block, counted from 0, to its queries, keys and values, for the blocks that
            were asked for (:meth:`BaseTeacher.read_layers`).
    """

    tokens: Tensor
    embedding: Tensor
    valid: Tensor
    cls: Tensor | None = None
    layers: Mapping[int, LayerTokens] = field(default_factory=dict)


@dataclass
class StudentOutput:
    """Features of a CNN student, computed from the visible cells of a batch of images.

    Attributes:
        images: (B, 3, H, W) the normalized images, unmasked.
        mask: the cells that the student saw.
        maps: backbone outputs, fine to coarse, on visible cells only.
        decoded: (B, C, h, w) dense output of the neck, or None without a neck.
    """

    images: Tensor
    mask: CellMask
    maps: tuple[SparseFeatureMap, ...]
    decoded: Tensor | None


@dataclass
class TransformerOutput:
    """Features of a transformer student, with redundant tokens left out on the way.

    Attributes:
        tokens: (B, n, D) the surviving patch tokens, after the last norm.
        cls: (B, D) class token after the last norm; None for networks without.
        index: (B, n) long, their positions in raster order on the token grid; None if all are
            there, in order.
        layers: block, counted from 0, to its queries, keys and values, for the blocks that
            were asked for. A token is still in the block after which it is dropped.
    """

    tokens: Tensor
    cls: Tensor | None
    index: Tensor | None
    layers: Mapping[int, LayerTokens]
