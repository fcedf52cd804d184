"""Filling a network with weights, all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from hgkd_mm.utils.weights_fit import compare, fitting, listed, shapes_of


def load_strictly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    source: str | Path,
    hint: str,
    unused: Iterable[str] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Loads every weight of a module, or nothing.

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

    Raises:
        RuntimeError: a weight is missing or has the wrong shape; names and counts them.
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
    filled = {name: _as_weight(value) for name, value in fitting(own, weights).items()}
    module.load_state_dict(filled, strict=True, assign=True)
    ignored = [*fit.unused, *unused]
    MMLogger.get_current_instance().info(
        f'Teacher {what}: {fit.loaded} of {fit.total} weights loaded from {source}, '
        f'{len(fit.missing)} missing, {len(ignored)} of the file not used{listed(ignored)}.'
    )


def _as_weight(value: Tensor) -> Tensor:
    if value.is_floating_point() and value.dtype != torch.float64:
        return value.float()
    return value
