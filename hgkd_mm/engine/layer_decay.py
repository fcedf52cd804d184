"""Layer-wise learning-rate decay, in models of every package."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_KEYS = {
    'layer_decay_rate',
    'blocks_per_group',
    'norm_decay_mult',
    'bias_decay_mult',
    'flat_decay_mult',
    'custom_keys',
}
_STAGE = re.compile(r'layer(\d+)')
# CLIP's extra norm is registered after the blocks and works before them.
_BEFORE_BLOCKS = {'patch_embed', 'pre_norm'}


def layer_ids(
    backbone: nn.Module, blocks_per_group: Sequence[int] | None = None
) -> tuple[dict[str, int], int]:
    """The layer id of each weight of a backbone by name, and the id of the heads.

    CNNs are those whose stages are called layer1, layer2, ...: the ResNets and MobileNetV2 of
    mmpretrain, mmdet and torchvision. What is registered before the first stage is the stem, id
    0; what comes after the last stage (MobileNetV2's conv2) shares the last id.

    Plain vision transformers are those with a ``patch_embed`` and their blocks in ``layers``:
    mmpretrain's ``VisionTransformer`` and mmseg's. Patch embedding, class token and position
    embedding are id 0, block i is i + 1, and norms after the blocks have the heads' id, as in
    MAE's util/lr_decay.py, BEiT and mmpretrain's ``VisionTransformer.get_layer_depth``.

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
    is_transformer = {'patch_embed', 'layers'} <= set(children)
    stages = ['layers'] if is_transformer else list(filter(_STAGE.fullmatch, children))
    if not stages:
        raise ValueError(
            'Layer decay is for backbones whose stages are called layer1, layer2, ... (ResNet, '
            'MobileNetV2) and plain ones of a patch_embed and layers (VisionTransformer), but '
            f'{type(backbone).__name__} has {", ".join(children)}: remove '
            'optim_wrapper.constructor, or use one for this network.'
        )
    depths = [len(backbone.get_submodule(name)) for name in stages]
    sizes = blocks_per_group or ([1] if is_transformer else depths)
    if len(sizes) != len(depths) or min(sizes) < 1:
        raise ValueError(
            'optim_wrapper.paramwise_cfg.blocks_per_group takes one number a stage, 1 or more: '
            f'{type(backbone).__name__} has {len(depths)} stages of {depths} blocks, but got '
            f'{list(sizes)}.'
        )
    before = _BEFORE_BLOCKS if is_transformer else children[: children.index(stages[0])]
    first, head = {}, 1
    for stage, depth, size in zip(stages, depths, sizes, strict=True):
        first[stage] = head, size
        head += -(-depth // size)

    ids = {}
    for name, _ in backbone.named_parameters():
        child, *rest = name.split('.')
        if child in first:
            start, size = first[child]
            ids[name] = start + int(rest[0]) // size
        elif child in before or not rest:
            ids[name] = 0
        else:
            ids[name] = head if is_transformer else head - 1
    return ids, head


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that shrink from the head down to the stem.

    Every weight of ``model.backbone`` has a layer id (`layer_ids`), everything else the heads'
    id, and learns at ``lr * rate ** (heads' id - id)``. Groups and exponents of CNNs are SparK's
    (downstream_imagenet/models, downstream_d2/lr_decay.py), those of vision transformers MAE's.
    mmpretrain's ``LearningRateDecayOptimWrapperConstructor`` gives the same ids for ResNet-50 and
    deeper and vision transformers, but in its own classifiers only.

    Weights of equal learning rate and weight decay share a parameter group, so that fused and
    multi-tensor optimizers stay fast.

    ``paramwise_cfg`` takes ``layer_decay_rate`` (default 1), ``blocks_per_group`` (`layer_ids`),
    and ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult`` and ``custom_keys`` of
    MMEngine's ``DefaultOptimWrapperConstructor``; ``lr_mult`` of a custom key multiplies the
    layer's rate.

    Raises:
        ValueError: Another key in ``paramwise_cfg``, no ``optimizer.lr``, or a model or backbone
            whose layers cannot be told.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if unknown := sorted(set(self.paramwise_cfg) - _KEYS):
            raise ValueError(
                f'LayerDecayOptimWrapperConstructor has no layer for {", ".join(unknown)} in '
                f'optim_wrapper.paramwise_cfg; it takes {", ".join(sorted(_KEYS))}.'
            )
        if self.base_lr is None:
            raise ValueError('Layer decay needs a number in optim_wrapper.optimizer.lr.')

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: bool | None = None,
    ) -> None:
        """Appends the groups of a model with a backbone, lowest first, and logs a line a layer."""
        if prefix:  # MMEngine's own recursion
            super().add_params(params, module, prefix, is_dcn_module)
            return
        if not hasattr(module, 'backbone'):
            raise ValueError(
                f'Layer decay needs model.backbone, and {type(module).__name__} has none: remove '
                'optim_wrapper.constructor.'
            )
        inside, head = layer_ids(module.backbone, self.paramwise_cfg.get('blocks_per_group'))
        ids = {f'backbone.{name}': layer for name, layer in inside.items()}
        each: list[dict] = []
        super().add_params(each, module)
        options = {}  # of each weight; shared ones come once
        for group in each:
            options.setdefault(group.pop('params')[0], group)
        names = {parameter: name for name, parameter in module.named_parameters()}
        layers: list[list[nn.Parameter]] = [[] for _ in range(head + 1)]
        for parameter in options:
            layers[ids.get(names[parameter], head)].append(parameter)

        groups: dict[str, dict] = {}
        for layer, weights in enumerate(layers):
            scale = self.paramwise_cfg.get('layer_decay_rate', 1.0) ** (head - layer)
            for parameter in weights:
                own = {'lr': self.base_lr, 'weight_decay': self.base_wd, **options[parameter]}
                own['lr'] *= scale
                kept = {
                    key: value
                    for key, value in own.items()
                    if key not in ('lr_mult', 'decay_mult') and value is not None
                }
                group = groups.setdefault(repr(sorted(kept.items())), {**kept, 'params': []})
                group['params'].append(parameter)
            where = f'{names[weights[0]]} ... {names[weights[-1]]}' if weights else 'frozen'
            print_log(
                f'Layer {layer} of {head}: lr {self.base_lr * scale:.3g}, {len(weights)} tensors, '
                f'{where}',
                logger='current',
            )
        params += groups.values()
