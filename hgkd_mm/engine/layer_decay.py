"""Layer-wise learning-rate decay, in models of every package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm, _InstanceNorm
from torch import nn

from .backbone_layers import backbone_layers

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
_KEYS = {
    'layer_decay_rate',
    'blocks_per_group',
    'norm_decay_mult',
    'bias_decay_mult',
    'flat_decay_mult',
    'custom_keys',
}


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
        """Appends the parameter groups of a model, lowest layer first, and logs a line a layer.

        Args:
            params: The list to append to.
            module: The model, with a ``backbone``.
            prefix: Not used; part of the parent's signature.
            is_dcn_module: Not used; part of the parent's signature.
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
