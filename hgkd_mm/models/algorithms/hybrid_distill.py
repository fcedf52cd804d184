"""Hybrid Distill: a transformer student learns from two kinds of teachers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import QKV, LayerTokens, TeacherOutput, TransformerOutput
from ..qkv import read_qkv
from ..student import Part, Student
from ..token_masking import RedundantTokenMasking
from .base import DistillModel


@MODELS.register_module()
class HybridDistill(DistillModel):
    r"""Hybrid distillation (arXiv 2306.15876) for ViT students.

    .. math::
        L = \alpha L_\mathrm{fd}(S, T_c) + \beta L_\mathrm{rel}(S, T_m), \quad \alpha = \beta = 1

    The student imitates the final features of a supervised or contrastive teacher
    :math:`T_c` (:class:`FeatureDistillationHead`), for discrimination, and the token relations
    of a masked-image-modeling teacher :math:`T_m` (:class:`TokenRelationHead`), for
    diversity; alpha and beta are the heads' weights. On its way through the student, an image
    loses its most redundant tokens (:class:`RedundantTokenMasking`), and teachers are compared
    on those that are left. Teachers see whole images, once a step.

    Any number of teachers and heads may be combined. The student is an unmodified
    ``mmpretrain.VisionTransformer``; hooks drop tokens and read queries and keys.

    Args:
        backbone: the student, config or module, with ``out_type='raw'`` and the last block for
            output, which give every token.
        masking: arguments of :class:`RedundantTokenMasking`; None keeps every token.
        distillation: ``heads``, ``teachers``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`DistillModel`.

    Raises:
        TypeError: the student is no ``VisionTransformer`` of mmpretrain, or masks by itself.
        ValueError: no head, an unknown teacher, or settings, widths, patches or layers that do
            not fit.
    """

    def __init__(
        self,
        *,
        backbone: Part,
        masking: dict | None = None,
        **distillation: Any,
    ) -> None:
        student = Student(backbone, output=TransformerOutput)
        _check_student(student.backbone)
        super().__init__(student=student, **distillation)
        self.masking = None if masking is None else RedundantTokenMasking(**masking)
        if self.masking is not None:
            self.masking.blocks(len(self.backbone.layers))
        read = [head.student_layers or () for head in self.heads.values()]
        self.layers = sorted({layer for layers in read for layer in layers})

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_<head>`` of a batch (B, 3, H, W); MMEngine's total is their sum.

        Raises:
            ValueError: images of which the masking leaves nothing.
        """
        return self.losses(*self.compare(inputs))

    def compare(self, images: Tensor) -> tuple[TransformerOutput, dict[str, TeacherOutput]]:
        """The student's output of images (B, 3, H, W), and that of each teacher by its name."""
        # Teachers first: their activations are gone before the student's are kept.
        targets = {name: teacher(images) for name, teacher in self.teachers.items()}
        return self.run_student(images), targets

    def run_student(self, images: Tensor) -> TransformerOutput:
        """The student's tokens of images (B, 3, H, W), without those that it dropped.

        Raises:
            ValueError: images of which the masking leaves nothing.
            RuntimeError: no gradient reaches what is read of the blocks.
        """
        blocks, prefix = self.backbone.layers, self.backbone.num_extra_tokens
        masking = self.masking or RedundantTokenMasking(keep_ratio=1.0)
        with (
            masking.applied(blocks, prefix) as surviving,
            read_qkv({layer: blocks[layer] for layer in self.layers}) as found,
        ):
            (tokens,) = self.backbone(images)
        if torch.is_grad_enabled() and tokens.requires_grad:
            _check_gradients(found)
        layers = {
            layer: LayerTokens(qkv=qkv, prefix=prefix, index=surviving.at(layer))
            for layer, qkv in found.items()
        }
        return TransformerOutput(
            tokens=tokens[:, prefix:],
            cls=tokens[:, 0] if prefix else None,
            index=surviving.index,
            layers=layers,
        )

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The last tokens of whole images as a map: (B, D, gh, gw), without masking."""
        patch = self.backbone.patch_embed.projection.kernel_size
        grid = inputs.shape[2] // patch[0], inputs.shape[3] // patch[1]
        (tokens,) = self.backbone(inputs)
        patches = tokens[:, self.backbone.num_extra_tokens :]
        return (patches.transpose(1, 2).unflatten(2, grid),)


def _check_student(backbone: nn.Module) -> None:
    masks = 'mask' in inspect.signature(backbone.forward).parameters
    if not isinstance(backbone, VisionTransformer) or masks:
        raise TypeError(
            f'The student of HybridDistill is a {type(backbone).__name__}, expected '
            "mmpretrain's VisionTransformer (model.backbone.type), which does not mask images "
            'itself. For a CNN with two teachers take HGKD.'
        )
    last = [backbone.num_layers - 1]
    if backbone.out_type != 'raw' or list(backbone.out_indices) != last:
        raise ValueError(
            f'The student of HybridDistill has out_type={backbone.out_type!r} and out_indices='
            f"{list(backbone.out_indices)}: set model.backbone.out_type='raw', which gives every "
            f'token, and out_indices=-1.'
        )


def _check_gradients(found: Mapping[int, QKV]) -> None:
    lost = [layer for layer, qkv in found.items() if not qkv.q.requires_grad]
    if lost:
        raise RuntimeError(
            f'No gradient reaches the queries and keys of blocks {lost}, so that their relations '
            "would not be learned: leave model.backbone's blocks out of activation_checkpointing, "
            'under which they are read while nothing is recorded, and out of frozen_stages.'
        )
