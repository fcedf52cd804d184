"""What a student and a teacher hand to the loss heads."""

from dataclasses import dataclass

from torch import Tensor

from hgkd_mm.sparse import CellMask, SparseFeatureMap


@dataclass
class TeacherOutput:
    """What a frozen teacher says of a batch of images.

    Attributes:
        tokens: (B, D, gh, gw) patch features on the teacher's token grid; zero
            where ``valid`` is False.
        embedding: (B, E) one vector per image, not normalised.
        valid: (B, gh, gw) bool, True where ``tokens`` carries a feature. Only
            ``teacher_view='visible'`` has False entries.
    """

    tokens: Tensor
    embedding: Tensor
    valid: Tensor


@dataclass
class StudentOutput:
    """What the student computed from the visible cells of a batch of images.

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
