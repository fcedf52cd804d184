"""Hybrid Distill: a transformer student learns from two kinds of teachers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..heads.base import DistillHead
from ..outputs import QKV, LayerTokens, TeacherOutput, TransformerOutput
from ..qkv import attention_blocks, read_qkv
from ..student import Part, Student, warn
from ..token_masking import RedundantTokenMasking
from ..tokens import patch_size
from .base import DistillModel, Images


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

    Further arguments are those of :class:`DistillModel`.

    Args:
        backbone: the student, config or module, with ``out_type='raw'`` and the last block for
            output, which give every token.
        masking: arguments of :class:`RedundantTokenMasking`; None keeps every token.

    Raises:
        TypeError: the student is no ``VisionTransformer`` of mmpretrain, or masks by itself.
        ValueError: no head, an unknown teacher, or settings, widths, patches or layers that do
            not fit.
    """

    def __init__(
        self,
        *,
        backbone: Part,
        heads: dict[str, dict | DistillHead | None],
        teachers: dict[str, Part] | None = None,
        masking: dict | None = None,
        data_preprocessor: Part | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        masking = None if masking is None else _read_masking(masking)
        student = Student(backbone, output=TransformerOutput)
        _check_student(student.backbone)
        super().__init__(
            student=student,
            heads=heads,
            teachers=teachers,
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        self.masking = masking
        blocks = attention_blocks(self.backbone)
        if masking is not None:
            masking.counts(math.prod(self.backbone.patch_resolution), len(blocks))
        needs = [head.needs for head in self.heads.values()]
        self.layers = sorted({layer for need in needs for layer in need.student_layers})
        _check_trained(self.backbone, blocks, self.layers)
        if all(need.student == 'layers' for need in needs):
            _freeze_behind(self.backbone, blocks, self.layers[-1])

    def loss(
        self, inputs: Images, data_samples: list[DataSample] | None = None
    ) -> dict[str, Tensor]:
        """``loss_<head>`` of a batch (B, 3, H, W); MMEngine's total is their sum.

        Raises:
            ValueError: more than one view, or images of which the masking leaves nothing.
        """
        return self.losses(*self.compare(self.single_view(inputs)))

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
            grid=self._grid(images),
            layers=layers,
        )

    def extract_feat(self, inputs: Images) -> tuple[Tensor, ...]:
        """The last tokens of whole images as a map: (B, D, gh, gw), without masking.

        Raises:
            ValueError: more than one view, or images that do not divide into patches.
        """
        images = self.single_view(inputs)
        grid = self._grid(images)
        (tokens,) = self.backbone(images)
        patches = tokens[:, self.backbone.num_extra_tokens :]
        return (patches.transpose(1, 2).unflatten(2, grid),)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        patch, size = patch_size(self.backbone), tuple(images.shape[2:])
        if any(s % p for s, p in zip(size, patch, strict=True)):
            raise ValueError(
                f'Images of {size[0]} x {size[1]} pixels do not divide into the patches of '
                f'{patch[0]} x {patch[1]} pixels of the student: change the crop size of the '
                'pipeline or model.backbone.patch_size.'
            )
        return size[0] // patch[0], size[1] // patch[1]


def _read_masking(config: dict) -> RedundantTokenMasking:
    known = list(inspect.signature(RedundantTokenMasking).parameters)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(f'model.masking has the keys {known}, got {unknown} as well.')
    return RedundantTokenMasking(**config)


def _check_student(backbone: nn.Module) -> None:
    if not isinstance(backbone, VisionTransformer):
        raise TypeError(
            f'The student of HybridDistill is a {type(backbone).__name__}, expected '
            "mmpretrain's VisionTransformer (model.backbone.type). For a CNN with two teachers "
            'take HGKD.'
        )
    if 'mask' in inspect.signature(backbone.forward).parameters:
        raise TypeError(
            f'The student of HybridDistill is a {type(backbone).__name__}, which masks images '
            "itself: take model.backbone.type='VisionTransformer' (model.masking drops tokens)."
        )
    last = [backbone.num_layers - 1]
    if backbone.out_type != 'raw' or list(backbone.out_indices) != last:
        raise ValueError(
            f'The student of HybridDistill has out_type={backbone.out_type!r} and out_indices='
            f"{list(backbone.out_indices)}: set model.backbone.out_type='raw', which gives every "
            f'token, and out_indices=-1.'
        )


def _check_trained(
    backbone: VisionTransformer, blocks: Sequence[nn.Module], layers: Sequence[int]
) -> None:
    stem = [
        value
        for name, value in backbone.named_parameters()
        if name.split('.')[0] not in ('layers', 'ln1', 'ln2')
    ]
    learns = any(value.requires_grad for value in stem)
    for number, block in enumerate(blocks):
        read = (block.ln1, block.attn.qkv)
        if number in layers and not (
            learns or any(value.requires_grad for part in read for value in part.parameters())
        ):
            raise ValueError(
                f'A head reads block {number} of the student, up to which nothing is trained '
                f'(model.backbone.frozen_stages={backbone.frozen_stages}): freeze less, or read '
                'later blocks (student_layers of the head).'
            )
        learns = learns or any(value.requires_grad for value in block.parameters())


def _freeze_behind(backbone: VisionTransformer, blocks: Sequence[nn.Module], last: int) -> None:
    """Freezes what no head reads: DistributedDataParallel would wait for its gradients."""
    read = {
        id(value)
        for part in (blocks[last].ln1, blocks[last].attn.qkv)
        for value in part.parameters()
    }
    unread = [value for block in blocks[last:] for value in block.parameters()]
    if backbone.final_norm:
        unread += backbone.ln1.parameters()
    for value in unread:
        if id(value) not in read:
            value.requires_grad_(False)
    warn(
        f'No head reads the last tokens: behind the queries, keys and values of block {last} '
        'the student is not trained.'
    )


def _check_gradients(found: Mapping[int, QKV]) -> None:
    lost = [layer for layer, qkv in found.items() if not qkv.q.requires_grad]
    if lost:
        raise RuntimeError(
            f'No gradient reaches the queries and keys of blocks {lost}, as with activation '
            'checkpointing, under which they are read while nothing is recorded: leave '
            "model.backbone's blocks out of activation_checkpointing, or relations would not be "
            'learned.'
        )
