"""Which weights of a model its ``init_cfg`` takes from files, and whether they got there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn

from hgkd_mm.utils.weights_fit import Fit, compare, fitting, weight_names

from .pretrained_file import PretrainedFile


@dataclass(frozen=True, kw_only=True)
class PretrainedPart:
    """A module whose ``init_cfg`` names a file.

    Attributes:
        name: of the module in the model, '' for the model itself.
        module: the module.
        files: those that it names, in order.
    """

    name: str
    module: nn.Module
    files: tuple[PretrainedFile, ...]

    @property
    def key(self) -> str:
        """The config key of the module."""
        return f'model.{self.name}' if self.name else 'model'

    def full_name(self, weight: str) -> str:
        """A weight's name in the model."""
        return f'{self.name}.{weight}' if self.name else weight


@dataclass(frozen=True, kw_only=True)
class PartFit(Fit):
    """What a module has of its file's weights, by name in the model.

    Attributes:
        changed: weights that have other values than the file's.
    """

    changed: tuple[str, ...]

    @property
    def shortfalls(self) -> dict[str, tuple[str, ...]]:
        """Weights of the module that are not the file's, by what is wrong with them."""
        return {**super().shortfalls, 'with other values': self.changed}


def pretrained_parts(model: nn.Module) -> Iterator[PretrainedPart]:
    """The modules whose ``init_cfg`` is of type 'Pretrained', outer ones first."""
    for name, module in model.named_modules():
        if not isinstance(module, BaseModule) or not module.init_cfg:
            continue
        files = tuple(_files(module.init_cfg, f'model.{name}' if name else 'model'))
        if files:
            yield PretrainedPart(name=name, module=module, files=files)


def read_part(part: PretrainedPart) -> dict[str, Tensor]:
    """The weights that MMEngine takes for a module; see `PretrainedFile.read`."""
    return {name: value for file in part.files for name, value in file.read().items()}


def expected_values(
    parts: list[PretrainedPart], files: list[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What the weights of the model should be, by name.

    An outer module loads after those in it, so that its file wins.
    """
    expected: dict[str, Tensor] = {}
    for part, weights in reversed(list(zip(parts, files, strict=True))):
        for name, value in fitting(part.module.state_dict(), weights).items():
            expected[part.full_name(name)] = value
    return expected


def compare_part(
    part: PretrainedPart, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> PartFit:
    """Compares a module with the weights of its file.

    Args:
        part: the module.
        weights: of its file.
        expected: of the whole model, as `expected_values` gives them.
    """
    own = part.module.state_dict()
    fit = compare(own, weights)
    lacking = set(fit.lacking)
    changed = [
        name
        for name in weight_names(own)
        if name not in lacking and not _equal(own[name], expected[part.full_name(name)])
    ]
    return PartFit(
        total=fit.total,
        missing=tuple(map(part.full_name, fit.missing)),
        other_shape=tuple(map(part.full_name, fit.other_shape)),
        unused=fit.unused,
        changed=tuple(map(part.full_name, changed)),
    )


def _files(
    init_cfg: Mapping[str, Any] | list[Mapping[str, Any]], key: str
) -> Iterator[PretrainedFile]:
    """Those of the settings of type 'Pretrained'."""
    if isinstance(init_cfg, Mapping):
        settings = {f'{key}.init_cfg': init_cfg}
    else:
        settings = {f'{key}.init_cfg.{index}': cfg for index, cfg in enumerate(init_cfg)}
    for place, cfg in settings.items():
        if cfg['type'] in ('Pretrained', PretrainedInit):
            yield PretrainedFile(
                checkpoint=str(cfg['checkpoint']),
                prefix=cfg.get('prefix'),
                key=f'{place}.checkpoint',
            )


def _equal(own: Tensor, value: Tensor) -> bool:
    return torch.equal(own.detach().cpu(), value.to(device='cpu', dtype=own.dtype))
