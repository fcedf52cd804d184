"""What every loss head is."""

from abc import abstractmethod

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..outputs import StudentOutput, TeacherOutput, TransformerOutput
from ..patches import patch_size


class DistillHead(BaseModule):
    """One term of the objective.

    Args:
        teacher: name of the teacher (key of ``model.teachers``) whose output the head
            wants, or None if it needs no teacher.
        weight: factor of the term in the total. H-GKD sums its terms plainly (stated), so 1.
        init_cfg: initialisation of the head's layers.

    Raises:
        ValueError: the weight is negative.
    """

    reads_decoded = True  # a model none of whose heads does runs without its neck
    reads_tokens = True  # a transformer none of whose heads does learns up to the blocks they read
    reads: type = (
        StudentOutput  # what it wants of the student: a CNN's output, or TransformerOutput
    )
    teacher_layers: tuple[int, ...] = ()  # blocks of the teacher whose attention it wants to see
    student_layers: tuple[int, ...] | None = None  # the same of a transformer student

    def __init__(
        self,
        *,
        teacher: str | None,
        weight: float = 1.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if weight < 0:
            raise ValueError(
                f'The weight of {type(self).__name__} is {weight}, expected 0 or more: set weight '
                'of the head.'
            )
        self.teacher = teacher
        self.weight = weight

    @abstractmethod
    def forward(
        self, student: StudentOutput | TransformerOutput, teacher: TeacherOutput | None
    ) -> Tensor:
        """The unweighted loss, a scalar."""

    def check(
        self,
        key: str,
        *,
        neck: nn.Module | None,
        teacher: nn.Module | None,
        backbone: nn.Module | None = None,
    ) -> None:
        """Refuses a configuration that cannot work, before training starts.

        Args:
            key: config key of the head, for messages.
            neck: the student's neck, with ``out_channels`` and ``out_stride``.
            teacher: the teacher that the head named.
            backbone: the student's backbone.

        Raises:
            ValueError: widths or views do not fit.
        """


def check_decoder(key: str, *, neck: nn.Module | None, in_channels: int) -> nn.Module:
    """The neck, if it feeds a head of ``in_channels``; a ValueError that says why otherwise."""
    if neck is None:
        raise ValueError(
            f'{key} reads the decoded map, but the model has no neck: add '
            "neck=dict(type='UNetDecoder', ...)."
        )
    if neck.out_channels != in_channels:
        raise ValueError(
            f'{key}.in_channels is {in_channels}, but the neck gives {neck.out_channels} channels: '
            f'set {key}.in_channels={neck.out_channels} or change neck.width or neck.out_stride.'
        )
    return neck


def check_token_grid(key: str, *, backbone: nn.Module, teacher: nn.Module, name: str) -> None:
    """Refuses a teacher whose tokens are not those of a transformer student.

    Args:
        key: config key of the head.
        backbone: the student.
        teacher: the teacher.
        name: its name.

    Raises:
        ValueError: patches of another size, or a teacher that does not see whole images, since
            a transformer student draws no mask of cells.
    """
    own = patch_size(backbone)
    if own != (teacher.patch_size, teacher.patch_size):
        raise ValueError(
            f'{key} compares tokens one by one, but those of the student cover {own[0]} x {own[1]} '
            f"pixels and those of teacher '{name}' {teacher.patch_size} x {teacher.patch_size}: "
            f'take a teacher of the same patch size, or set model.teachers.{name}.token_stride='
            f'{own[0]}, which resizes the images for it.'
        )
    if teacher.teacher_view != 'full':
        raise ValueError(
            f"{key} wants all tokens of whole images of teacher '{name}', which has "
            f"teacher_view='{teacher.teacher_view}': set model.teachers.{name}.teacher_view='full'."
        )


def at_least_float32(x: Tensor) -> Tensor:
    """Losses are taken in float32 even where autocast computed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
