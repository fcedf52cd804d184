"""Layer-wise learning-rate decay, in models of every package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm, _InstanceNorm
from torch import nn

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
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
    """The layer ids of a backbone, a CNN of stages or a plain vision transformer.

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


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that shrink from the head down to the stem.

    Every weight of ``model.backbone`` has a layer id (`backbone_layers`), everything else the
    last id, and learns at ``lr * rate ** (last id - id)``. Groups and exponents of CNNs are SparK's
    (downstream_imagenet/models, downstream_d2/lr_decay.py), those of vision transformers MAE's.
    mmpretrain's ``LearningRateDecayOptimWrapperConstructor`` gives the same ids for ResNet-50,
    -101, -152 and -200 and vision transformers, in its own classifiers; it does not know other
    depths, MobileNetV2, detectors or segmentors. mmdet's knows ConvNeXt only, mmseg's also its own
    BEiT and MAE.

    Weights of equal learning rate and weight decay share a parameter group, so that fused and
    multi-tensor optimizers stay fast.

    ``paramwise_cfg`` takes ``layer_decay_rate`` (default 1), ``blocks_per_group``
    (`backbone_layers`), and ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult`` and
    ``custom_keys`` as MMEngine's ``DefaultOptimWrapperConstructor`` does; ``lr_mult`` of a custom
    key multiplies the layer's rate.

    Raises:
        ValueError: Another key in ``paramwise_cfg``, no ``optimizer.lr``, or a model or backbone
            whose layers cannot be told.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - _KEYS)
        if unknown:
            raise ValueError(
                f'LayerDecayOptimWrapperConstructor does not know {", ".join(unknown)} in '
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
        """Appends the groups of a model with a backbone, lowest first, and logs a line a layer.

        ``prefix`` and ``is_dcn_module`` belong to the parent's signature and are not used.
        """
        backbone = dict(module.named_children()).get('backbone')
        if backbone is None:
            raise ValueError(
                f'Layer decay needs model.backbone, and {type(module).__name__} has none: remove '
                'optim_wrapper.constructor.'
            )
        layers = backbone_layers(backbone, self.paramwise_cfg.get('blocks_per_group'))
        rate, head = self.paramwise_cfg.get('layer_decay_rate', 1.0), layers.count
        members: list[list[tuple[str, nn.Parameter, nn.Module]]] = [[] for _ in range(head + 1)]
        for name, parameter, owner in _trained(module):
            inside = name.startswith('backbone.')
            layer = layers.id_of(name.removeprefix('backbone.')) if inside else head
            members[layer].append((name, parameter, owner))

        groups: dict[str, dict] = {}
        for layer, weights in enumerate(members):
            scale = rate ** (head - layer)
            for name, parameter, owner in weights:
                options = self._options(name, parameter, owner)
                options['lr'] *= scale
                group = groups.setdefault(repr(sorted(options.items())), {**options, 'params': []})
                group['params'].append(parameter)
            where = f'{weights[0][0]} ... {weights[-1][0]}' if weights else 'frozen'
            print_log(
                f'Layer {layer} of {head}: lr {self.base_lr * scale:.3g}, {len(weights)} tensors, '
                f'{where}',
                logger='current',
            )
        params += groups.values()

    def _options(self, name: str, parameter: nn.Parameter, owner: nn.Module) -> dict[str, Any]:
        """Learning rate before the decay, weight decay, and what a custom key adds."""
        custom = self.paramwise_cfg.get('custom_keys', {})
        # MMEngine's rule: the longest key wins, of equally long ones the first by alphabet.
        key = next((k for k in sorted(sorted(custom), key=len, reverse=True) if k in name), None)
        extra = dict(custom[key]) if key is not None else {}
        options = {'lr': self.base_lr * extra.pop('lr_mult', 1.0)}
        if self.base_wd is not None:
            default = 1.0 if key is not None else self._decay_mult(name, parameter, owner)
            options['weight_decay'] = self.base_wd * extra.pop('decay_mult', default)
        return options | extra

    def _decay_mult(self, name: str, parameter: nn.Parameter, owner: nn.Module) -> float:
        rules = (
            ('norm_decay_mult', isinstance(owner, _NORMS)),
            ('bias_decay_mult', name.endswith('bias')),
            ('flat_decay_mult', parameter.ndim == 1),
        )
        given = (self.paramwise_cfg.get(key) for key, fits in rules if fits)
        return next((mult for mult in given if mult is not None), 1.0)


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Name, parameter and owning module of every trained weight; shared ones come once."""
    seen: set[nn.Parameter] = set()
    for prefix, owner in model.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f'{prefix}.{name}' if prefix else name, parameter, owner
