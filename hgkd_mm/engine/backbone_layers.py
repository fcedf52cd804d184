"""Layer ids inside backbones, by which learning rates decay: CNN stages and plain ViTs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

_STAGE = re.compile(r'layer(\d+)')
# CLIP's extra norm is registered after the blocks and works before them.
_BEFORE_BLOCKS = {'patch_embed', 'pre_norm'}


@dataclass(frozen=True)
class BackboneLayers:
    """Layer ids inside a backbone.

    Attributes:
        first_ids: (id of its first block, blocks of one id) by stage name.
        before: Children and weights of the backbone itself that work before the first stage: id 0.
        after: The id of everything else.
        count: Number of ids up to the last stage, the stem's included.
    """

    first_ids: dict[str, tuple[int, int]]
    before: frozenset[str]
    after: int
    count: int

    def id_of(self, name: str) -> int:
        """The id of a weight by its name inside the backbone, ``layer2.0.conv1.weight`` say."""
        child, *rest = name.split('.')
        if child in self.first_ids:
            first, blocks = self.first_ids[child]
            return first + int(rest[0]) // blocks
        return 0 if child in self.before else self.after


def backbone_layers(
    backbone: nn.Module, blocks_per_group: Sequence[int] | None = None
) -> BackboneLayers:
    """Numbers the layers of a backbone.

    CNNs are those whose stages are called layer1, layer2, ...: the ResNets and MobileNetV2 of
    mmpretrain, mmdet and torchvision. What is registered before the first stage is the stem, id
    0; what comes after the last stage (MobileNetV2's conv2) shares the last id.

    Plain vision transformers are those with a ``patch_embed`` and their blocks in ``layers``:
    mmpretrain's ``VisionTransformer`` and mmseg's. Patch embedding, class token and position
    embedding are id 0, block i is i + 1, and what comes after the blocks (norms of the output) has
    the heads' id, ``count``. These are MAE's ids (its util/lr_decay.py), BEiT's, and those of
    mmpretrain's ``VisionTransformer.get_layer_depth``, except for CLIP's ``pre_norm``: it works
    before the blocks and is id 0 here.

    Args:
        backbone: The network.
        blocks_per_group: One number a stage: a new id begins every so many blocks. SparK's
            ImageNet groups of a ResNet-50 or -101 are (3, 2, 3, 3), its COCO groups of a
            ResNet-50 (3, 4, 3, 3). A vision transformer has one stage. None: every stage of a CNN
            is one group, every block of a transformer is.

    Raises:
        ValueError: The backbone has no such layers, or ``blocks_per_group`` does not fit them.
    """
    children = [name for name, _ in backbone.named_children()]
    if {'patch_embed', 'layers'} <= set(children):
        depths = {'layers': len(backbone.get_submodule('layers'))}
        first_ids, count = _grouped(backbone, depths, blocks_per_group or (1,))
        own = {name for name, _ in backbone.named_parameters(recurse=False)}
        before = frozenset(own | _BEFORE_BLOCKS)
        return BackboneLayers(first_ids=first_ids, before=before, after=count, count=count)

    stages = [name for name in children if _STAGE.fullmatch(name)]
    if not stages:
        raise ValueError(
            'Layer decay knows backbones whose stages are called layer1, layer2, ... (ResNet, '
            'MobileNetV2) and plain ones of a patch_embed and layers (VisionTransformer), but '
            f'{type(backbone).__name__} has {", ".join(children)}: remove '
            'optim_wrapper.constructor, or use one that knows this network.'
        )
    depths = {name: len(backbone.get_submodule(name)) for name in stages}
    sizes = list(depths.values()) if blocks_per_group is None else blocks_per_group
    first_ids, count = _grouped(backbone, depths, sizes)
    before = frozenset(children[: children.index(stages[0])])
    return BackboneLayers(first_ids=first_ids, before=before, after=count - 1, count=count)


def _grouped(
    backbone: nn.Module, depths: Mapping[str, int], sizes: Sequence[int]
) -> tuple[dict[str, tuple[int, int]], int]:
    """`BackboneLayers.first_ids` for stages of these depths, and the id after the last."""
    if len(sizes) != len(depths) or min(sizes) < 1:
        raise ValueError(
            'optim_wrapper.paramwise_cfg.blocks_per_group takes one number a stage, 1 or more: '
            f'{type(backbone).__name__} has {len(depths)} stages of {list(depths.values())} '
            f'blocks, but got {list(sizes)}.'
        )
    first_ids, next_id = {}, 1
    for (name, depth), size in zip(depths.items(), sizes, strict=True):
        first_ids[name] = (next_id, size)
        next_id += -(-depth // size)
    return first_ids, next_id
