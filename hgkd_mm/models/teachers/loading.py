"""Filling a network with weights, all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn


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
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    expected = {**own, **(shapes or {})}
    missing = [name for name in expected if name not in weights]
    wrong = [
        f'{name} is {tuple(weights[name].shape)}, needed {shape}'
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    extra = [name for name in weights if name not in expected]
    if missing or wrong:
        raise RuntimeError(
            f'{source} does not fit the {what} of the teacher: of {len(expected)} weights, '
            f'{len(missing)} are missing{_listed(missing)} and {len(wrong)} have the wrong '
            f'shape{_listed(wrong)}. {len(extra)} names of the file are unknown'
            f'{_listed(extra)}. A teacher with random weights would teach noise, so that this '
            f'run does not start. {hint}'
        )
    filled = {name: _as_weight(weights[name]) for name in own}
    module.load_state_dict(filled, strict=True, assign=True)
    ignored = [*extra, *unused]
    MMLogger.get_current_instance().info(
        f'Teacher {what}: {len(expected)} of {len(expected)} weights loaded from {source}, '
        f'0 missing, {len(ignored)} of the file not used{_listed(ignored)}.'
    )


def _as_weight(value: Tensor) -> Tensor:
    if value.is_floating_point() and value.dtype != torch.float64:
        return value.float()
    return value


def _listed(names: list[str], limit: int = 8) -> str:
    if not names:
        return ''
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f' ({", ".join(names[:limit])}{more})'
