"""How the weights of a file fit a network, by name and shape.

Counters of batch norms (``num_batches_tracked``) are no weights: nothing reads them unless a norm
has ``momentum=None``, and old files lack them. They are not counted, and are loaded where a file
has them; absent ones stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import isfinite
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from .reading import CheckpointError

# What published files hold beside the features' network: classifiers, the norm after pooling
# (mmpretrain: ln2), the objectives of pre-training, and tables that follow from the grid.
BESIDE_FEATURES = re.compile(
    r'(head|lm_head|fc_norm|ln2\.|fc\.|pre_logits\.|classif|last_linear|aux_head|attn_pool\.'
    r'|mask_token|mask(ed)?_embed|cls_pt_|decoder)'
    r'|.*(relative_position_index|relative_coords_table|attn_mask)$'
)
_COUNTER = 'num_batches_tracked'
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What of a network a file fills, by name.

    Attributes:
        total: number of weights of the network.
        missing: weights that the file does not have.
        other_shape: weights that the file has in another shape, and both shapes in words.
        unused: weights of the file that the network does not have.
        changed: weights that have other values than the file's, if values were compared.
    """

    total: int
    missing: tuple[str, ...]
    other_shape: Mapping[str, str]
    unused: tuple[str, ...]
    changed: tuple[str, ...] = ()

    @property
    def lacking(self) -> tuple[str, ...]:
        """All weights of the network that are not the file's."""
        return *self.missing, *self.other_shape, *self.changed

    @property
    def loaded(self) -> int:
        """Number of weights that are the file's."""
        return self.total - len(self.lacking)

    def counts(self) -> str:
        """The report in one line."""
        shapes = [f'{name} is {shapes}' for name, shapes in self.other_shape.items()]
        lacking = [counted(self.missing, 'missing'), counted(shapes, 'of another shape')]
        if self.changed:
            lacking.append(counted(self.changed, 'with other values'))
        unused = counted(self.unused, 'in the file not used')
        return f'{self.loaded} of {self.total} weights ({", ".join(lacking)}; {unused})'


def compare(
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    values: Mapping[str, Tensor] | None = None,
) -> Fit:
    """Compares the state of a network with weights in its naming.

    Args:
        own: state of the network.
        found: weights of the file.
        values: what the weights that fit should be, to compare values too.
    """
    names = [name for name in own if not name.endswith(_COUNTER)]
    both = [name for name in names if name in found]
    other_shape = {
        name: f'{tuple(found[name].shape)}, needed {tuple(own[name].shape)}'
        for name in both
        if found[name].shape != own[name].shape
    }
    compared = () if values is None else [name for name in both if name not in other_shape]
    changed = [
        k for k in compared if not torch.equal(own[k].cpu(), values[k].to('cpu', own[k].dtype))
    ]
    return Fit(
        total=len(names),
        missing=tuple(name for name in names if name not in found),
        other_shape=other_shape,
        unused=tuple(k for k in found if k not in own and not k.endswith(_COUNTER)),
        changed=tuple(changed),
    )


def fitting(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a network can take of a file, counters of batch norms among it."""
    return {
        name: value
        for name, value in found.items()
        if name in own and own[name].shape == value.shape
    }


def counted(names: Collection[str], what: str) -> str:
    """Text such as '2 missing: a, b', which names the first."""
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return (
        f'{len(names)} {what}: {", ".join(islice(names, _SHOWN))}{more}' if names else f'0 {what}'
    )


def load_whole(
    module: nn.Module, weights: Mapping[str, Tensor], *, what: str, absent: tuple[str, ...] = ()
) -> Fit:
    """Loads all weights of a file into all of a module, or nothing.

    Args:
        module: what to fill; counters that ``weights`` lacks stay as they are.
        weights: name to tensor, in the module's own naming.
        what: how the message begins: what is wrong if they do not fit.
        absent: prefixes of the module's names that ``weights`` need not have.

    Raises:
        ValueError: a weight is missing, unknown or of another shape; names and counts them.
    """
    own = module.state_dict()
    fit = compare(own, weights)
    missing = [name for name in fit.missing if not name.startswith(absent)]
    if missing or fit.other_shape or fit.unused:
        raise ValueError(f'{what}: it fills {fit.counts()}, and all weights have to match.')
    # older torch resets counters that are absent
    module.load_state_dict({**own, **fitting(own, weights)})
    return fit


def load_strictly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    source: str | Path,
    hint: str,
    unused: Iterable[str] = (),
    beside: re.Pattern[str] = BESIDE_FEATURES,
) -> None:
    """Loads every weight of a teacher's network, or nothing.

    Refused are files of another network, with a weight that has no place in the module and is
    not known to leave its features alone (layer scale, registers, a further norm or block), and
    those of no training: with a matrix or kernel (``weight`` in the last part of its name, two
    dimensions or more) that is one number throughout, or a weight that is not finite.

    Args:
        module: what to fill, on the ``meta`` device if need be, since its weights are replaced;
            float32 afterwards unless the weights are float64.
        weights: name to tensor, in the module's own naming.
        what: 'encoder', 'decoder': for messages.
        source: where the weights come from: for messages.
        hint: the config keys to look at if they do not fit.
        unused: names of the file that are not meant for this module, for the report.
        beside: how the names begin that ``weights`` may hold without a place in the module.

    Raises:
        CheckpointError: a weight is missing, has the wrong shape, has no place in the module, or
            is constant or not finite; names and counts them.
    """
    own = module.state_dict()
    fit = compare(own, weights)
    if fit.lacking:
        raise CheckpointError(
            f'{source} does not fit the {what} of the teacher: it fills {fit.counts()}, and a '
            f'teacher with random weights would teach noise. {hint}'
        )
    homeless = [name for name in fit.unused if not beside.match(name)]
    if homeless:
        raise CheckpointError(
            f'{source} is of another network than the {what} of the teacher, which would give '
            f'other features without {counted(homeless, "weights of the file")}. {hint}'
        )
    filled = {
        name: value.float() if value.is_floating_point() and value.dtype != torch.float64 else value
        for name, value in fitting(own, weights).items()
    }
    constant, broken = _untrained(filled)
    if constant or broken:
        raise CheckpointError(
            f'{source} is no trained {what} of a teacher: '
            f'{counted(constant, "matrices or kernels are one number throughout")}; '
            f'{counted(broken, "weights are not finite")}. Give another file (config key '
            'checkpoint).'
        )
    module.load_state_dict(filled, strict=True, assign=True)
    fit = replace(fit, unused=(*fit.unused, *unused))
    MMLogger.get_current_instance().info(f'Teacher {what}: {fit.counts()} from {source}.')


def _untrained(weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names of constant matrices and kernels, and of weights that are not finite."""
    constant, broken = [], []
    for name, value in weights.items():
        if not value.is_floating_point() or not value.numel():
            continue
        is_matrix = value.dim() > 1 and 'weight' in name.rpartition('.')[2]
        low, high = (bound.item() for bound in value.aminmax())
        if not (isfinite(low) and isfinite(high)):
            broken.append(name)
        elif low == high and value.numel() > 1 and is_matrix:
            constant.append(name)
    return constant, broken
