"""Filling a network with weights, all of them or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from hgkd_mm.utils.weights_fit import compare, fitting, listed, shapes_of

# What published files hold beside the features' network: classifiers, the norm after pooling
# (mmpretrain: ln2), the objectives of pre-training, and tables that follow from the grid.
BESIDE_FEATURES = re.compile(
    r'(head|lm_head|fc_norm|ln2\.|fc\.|pre_logits\.|classif|last_linear|aux_head|attn_pool\.'
    r'|mask_token|mask(ed)?_embed|cls_pt_|decoder)'
    r'|.*(relative_position_index|relative_coords_table|attn_mask)$'
)


def load_strictly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    source: str | Path,
    hint: str,
    unused: Iterable[str] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    beside: re.Pattern[str] = BESIDE_FEATURES,
) -> None:
    """Loads every weight of a module, or nothing.

    A file of another network is refused: one with a weight that has no place in the module and
    is not known to leave its features alone (layer scale, registers, a further norm, a further
    block). So is one whose weights are no result of training: a matrix or kernel (``weight`` in the
    last part of its name, two dimensions or more) that is one number throughout, as norms, biases,
    tokens and tables may be, or any weight that is not finite.

    The module may have been made on the ``meta`` device: its weights are replaced, so that
    none of them can keep an initial value.

    Args:
        module: what to fill; converted to float32 unless the weights are float64.
        weights: name to tensor, in the module's own naming.
        what: 'encoder', 'decoder': for messages.
        source: where the weights come from: for messages.
        hint: the config keys to look at if they do not fit.
        unused: names of the file that are not meant for this module, for the report.
        shapes: further tensors that must be in ``weights``, with their shapes.
        beside: how the names begin that ``weights`` may hold without a place in the module.

    Raises:
        RuntimeError: a weight is missing, has the wrong shape, has no place in the module, or is
            constant or not finite; names and counts them.
    """
    own = module.state_dict()
    further = {name: torch.empty(shape, device='meta') for name, shape in (shapes or {}).items()}
    expected = {**own, **further}
    fit = compare(expected, weights)
    if fit.lacking:
        wrong = shapes_of(fit.other_shape, expected, weights)
        raise RuntimeError(
            f'{source} does not fit the {what} of the teacher: of {fit.total} weights, '
            f'{len(fit.missing)} are missing{listed(fit.missing)} and {len(wrong)} have the wrong '
            f'shape{listed(wrong)}. {len(fit.unused)} names of the file are unknown'
            f'{listed(fit.unused)}. A teacher with random weights would teach noise, so that this '
            f'run does not start. {hint}'
        )
    homeless = [name for name in fit.unused if not beside.match(name)]
    if homeless:
        raise RuntimeError(
            f'{source} is of another network than the {what} of the teacher, which has no place '
            f'for {len(homeless)} weights of the file{listed(homeless)} and would give other '
            f'features without them. {hint}'
        )
    filled = {name: _as_weight(value) for name, value in fitting(expected, weights).items()}
    constant, broken = _untrained(filled)
    if constant or broken:
        raise RuntimeError(
            f'{source} is no trained {what} of a teacher: {len(constant)} matrices or kernels are '
            f'one number throughout{listed(constant)} and {len(broken)} weights are not finite'
            f'{listed(broken)}. Give another file (config key checkpoint).'
        )
    # counters of batch norms may be absent
    kept = {name: filled[name] for name in own if name in filled}
    module.load_state_dict(kept, strict=True, assign=True)
    ignored = [*fit.unused, *unused]
    MMLogger.get_current_instance().info(
        f'Teacher {what}: {fit.loaded} of {fit.total} weights loaded from {source}, '
        f'{len(fit.missing)} missing, {len(ignored)} of the file not used{listed(ignored)}.'
    )


def _untrained(weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names of constant matrices and kernels, and of weights that are not finite."""
    constant, broken = [], []
    for name, value in weights.items():
        if not value.is_floating_point() or not value.numel():
            continue
        low, high = (bound.item() for bound in value.aminmax())
        if not (isfinite(low) and isfinite(high)):
            broken.append(name)
        elif low == high and value.dim() > 1 and value.numel() > 1 and _is_matrix(name):
            constant.append(name)
    return constant, broken


def _is_matrix(name: str) -> bool:
    return 'weight' in name.rpartition('.')[2]


def _as_weight(value: Tensor) -> Tensor:
    if value.is_floating_point() and value.dtype != torch.float64:
        return value.float()
    return value
