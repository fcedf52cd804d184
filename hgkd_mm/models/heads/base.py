"""What loss heads share: their protocol, and a decoded map on a teacher's tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..outputs import StudentOutput, TeacherOutput, TransformerOutput
from ..student import Student
from ..teachers.base import BaseTeacher


@dataclass(frozen=True)
class Partners:
    """The networks that a head is built for; asking for one that the model lacks is a ValueError.

    Attributes:
        key: config key of the head, for messages.
        student: the student, not yet built.
        named_teacher: the teacher that the head names, or None.
    """

    key: str
    student: Student
    named_teacher: BaseTeacher | None

    @property
    def teacher(self) -> BaseTeacher:
        """The head's teacher."""
        if self.named_teacher is None:
            raise ValueError(f'{self.key} needs a teacher: set {self.key}.teacher to its name.')
        return self.named_teacher

    @property
    def decoder(self) -> nn.Module:
        """The neck of a CNN student, with ``out_channels`` and ``out_stride``."""
        self._require('decoded')
        if self.student.neck is None:
            raise ValueError(
                f'{self.key} reads the decoded map, but the model has no neck: add '
                "neck=dict(type='UNetDecoder', ...)."
            )
        return self.student.neck

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of a CNN student's maps, fine to coarse."""
        self._require('maps')
        return self.student.channels

    @property
    def transformer(self) -> nn.Module:
        """A transformer student's network."""
        self._require('tokens')
        return self.student.backbone

    def _require(self, field: str) -> None:
        if field not in self.student.output.__dataclass_fields__:
            raise ValueError(
                f"{self.key} reads '{field}' of the student, which gives a "
                f'{self.student.output.__name__}: take another head or algorithm '
                '(docs/pretraining.md).'
            )

    def check_token_grid(self) -> None:
        """Refuses a teacher whose tokens are not those of a transformer student.

        Raises:
            ValueError: patches of another size, or a teacher that does not see whole images,
                since a transformer student draws no mask of cells.
        """
        projection, teacher = self.transformer.patch_embed.projection, self.teacher
        own = projection.kernel_size
        if projection.stride != own:
            raise ValueError(
                f'{self.key} needs patches that cover the image once, and those of the student, '
                f'{own[0]} x {own[1]} pixels, lie {projection.stride[0]} x {projection.stride[1]} '
                'apart: remove the stride from model.backbone.patch_cfg.'
            )
        if own != (teacher.patch_size, teacher.patch_size):
            raise ValueError(
                f'{self.key} compares tokens one by one, but those of the student cover {own[0]} x '
                f'{own[1]} pixels and those of its teacher {teacher.patch_size} x '
                f'{teacher.patch_size}: take a teacher of the same patch size, or set its '
                f'token_stride={own[0]}, which resizes the images for it.'
            )
        if teacher.teacher_view != 'full':
            raise ValueError(
                f'{self.key} compares all tokens of whole images, but its teacher has '
                f"teacher_view='{teacher.teacher_view}': set teacher_view='full' in "
                'model.teachers.'
            )


class DistillHead(BaseModule):
    """One term of the objective. Every head takes these arguments.

    Attributes:
        reads: the field of the student's output that ``forward`` reads: 'maps' or 'decoded' of a
            CNN (:class:`StudentOutput`), 'tokens' or 'layers' of a transformer
            (:class:`TransformerOutput`). What no head reads is not computed, or not trained.
        student_layers: blocks of a transformer student, for 'layers'.
        teacher_layers: blocks of the teacher whose queries, keys and values are read.

    Args:
        teacher: name of the teacher (key of ``model.teachers``), or None if the head needs none.
        weight: factor of the term in the total. H-GKD sums its terms plainly (stated), so 1.
        init_cfg: of the head's layers; truncated normal of std .02 by default.

    Raises:
        ValueError: the weight is negative.
    """

    reads: str = 'decoded'
    student_layers: tuple[int, ...] | None = None
    teacher_layers: tuple[int, ...] = ()

    def __init__(
        self,
        *,
        teacher: str | None = None,
        weight: float = 1.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))
        if weight < 0:
            raise ValueError(f'weight of {type(self).__name__} is {weight}, expected 0 or more.')
        self.teacher = teacher
        self.weight = weight

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        """Arguments that follow from the networks, beside those that the config has given."""
        return {}

    def check(self, partners: Partners) -> None:
        """Refuses what can neither be derived nor work, with a ValueError, before training."""

    @abstractmethod
    def forward(
        self, student: StudentOutput | TransformerOutput, teacher: TeacherOutput | None
    ) -> Tensor:
        """The unweighted loss, a scalar."""


def project_to_grid(
    decoded: Tensor, project: nn.Module, grid: tuple[int, int], *, teacher: str
) -> Tensor:
    """A decoded map (B, C, h, w), projected, on a teacher's token grid: (B, D, gh, gw).

    A map finer than the token grid is averaged over each token, a coarser one interpolated.

    Raises:
        ValueError: the two sizes are not multiples of each other.
    """
    (h, w), (gh, gw) = decoded.shape[2:], grid
    # Projection and resizing commute; each order below does the less work.
    if h % gh == 0 and w % gw == 0:
        if (h, w) != grid:
            decoded = F.avg_pool2d(decoded, (h // gh, w // gw))
        return project(decoded)
    if gh % h == 0 and gw % w == 0:
        return F.interpolate(project(decoded), size=grid, mode='bilinear', align_corners=False)
    raise ValueError(
        f"The decoded map of {h} x {w} and the {gh} x {gw} tokens of teacher '{teacher}' are not "
        'multiples of each other: set model.neck.out_stride to the patch size of the teacher, or '
        'take an image size that both divide.'
    )


def at_least_float32(x: Tensor) -> Tensor:
    """Losses are taken in float32 even where autocast computed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
