"""What a student and a teacher hand to the loss heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from hgkd_mm.sparse import CellMask, SparseFeatureMap

if TYPE_CHECKING:
    from .qkv import QKV  # which knows teachers' attention, and teachers know this file


@dataclass
class LayerTokens:
    """Queries, keys and values inside one block of a vision transformer.

    Attributes:
        qkv: (B, heads, P + n, d) each: P class and register tokens, then n patch tokens.
        prefix: P.
        index: (B, n) long, the patch tokens' positions in raster order on the token grid; None
            if all are there, in order.
    """

    qkv: QKV
    prefix: int
    index: Tensor | None = None


@dataclass
class TeacherOutput:
    """What a frozen teacher says of a batch of images.

    Attributes:
        tokens: (B, D, gh, gw) patch features on the teacher's token grid; zero
            where ``valid`` is False.
        embedding: (B, E) one vector per image, not normalised.
        valid: (B, gh, gw) bool, True where ``tokens`` carries a feature. Only
            ``teacher_view='visible'`` has False entries.
        cls: (B, D) class token after the last norm; None for networks without.
        layers: block, counted from 0, to its queries, keys and values, for the blocks that were
            asked for (:meth:`BaseTeacher.read_layers`).
    """

    tokens: Tensor
    embedding: Tensor
    valid: Tensor
    cls: Tensor | None = None
    layers: Mapping[int, LayerTokens] = field(default_factory=dict)


@dataclass
class StudentOutput:
    """What a CNN student computed from the visible cells of a batch of images.

    Attributes:
        images: (B, 3, H, W) the normalised images, unmasked.
        mask: which cells the student saw.
        maps: backbone outputs, fine to coarse, on visible cells only.
        decoded: (B, C, h, w) dense output of the neck, or None without a neck.
    """

    images: Tensor
    mask: CellMask
    maps: tuple[SparseFeatureMap, ...]
    decoded: Tensor | None


@dataclass
class TransformerOutput:
    """What a transformer student computed, with redundant tokens left out on the way.

    Attributes:
        tokens: (B, n, D) the surviving patch tokens, after the last norm.
        cls: (B, D) class token after the last norm; None for networks without.
        index: (B, n) long, their positions in raster order on the token grid; None if all are
            there, in order.
        grid: (gh, gw) tokens of the whole image.
        layers: block, counted from 0, to its queries, keys and values, for the blocks that
            were asked for. What a block drops is still there.
    """

    tokens: Tensor
    cls: Tensor | None
    index: Tensor | None
    grid: tuple[int, int]
    layers: Mapping[int, LayerTokens]
