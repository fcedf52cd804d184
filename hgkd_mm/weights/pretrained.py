"""Which weights of a model its ``init_cfg`` takes from files, and whether they got there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .fit import Fit, compare, fitting
from .reading import (
    CONTAINERS,
    CheckpointError,
    find_tensors,
    reason_of,
    under_prefix,
    without_wrapper,
)


@dataclass(frozen=True, kw_only=True)
class PretrainedFile:
    """A file that weights are taken from, as MMEngine takes them.

    Attributes:
        checkpoint: path, or an address that MMEngine knows.
        prefix: of the names of the weights that are wanted; None takes all.
        key: config key that names the file.
    """

    checkpoint: str
    prefix: str | None
    key: str

    @property
    def prefix_key(self) -> str:
        """Config key of the prefix."""
        return f'{self.key.removesuffix(".checkpoint")}.prefix'

    def read(self) -> dict[str, Tensor]:
        """The weights that MMEngine takes of the file, in the naming of the module.

        If the file is on the web, every rank has to take part.

        Raises:
            CheckpointError: the file is not there or cannot be read.
            ValueError: there are no weights at the top or under ``state_dict``, or none under the
                prefix.
        """
        try:
            content = CheckpointLoader.load_checkpoint(
                self.checkpoint, map_location='cpu', logger='silent'
            )
        except Exception as error:  # a damaged file can trip the reader in any way
            start = self.key.partition('.init_cfg')[0]
            problem = (
                f'{reason_of(error).rstrip(".")}: {start} cannot start from {self.checkpoint} '
                f'(config key {self.key}).'
            )
            if isinstance(error, FileNotFoundError):
                problem += (
                    ' For random weights take the config whose name ends in _scratch, or leave '
                    f'{start}.init_cfg out; with None the network would not even initialize itself.'
                )
            raise CheckpointError(problem) from error
        tensors = find_tensors(
            content, self.checkpoint, key=f'config key {self.key}', containers=CONTAINERS[:1]
        )
        if self.prefix is None:
            return without_wrapper(tensors)
        prefix = f'{self.prefix.removesuffix(".")}.'
        key = f'config key {self.prefix_key}'
        return under_prefix(tensors, prefix, source=self.checkpoint, key=key)


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

    def read(self) -> dict[str, Tensor]:
        """The weights that MMEngine takes for it, by name in the model."""
        weights = {name: value for file in self.files for name, value in file.read().items()}
        return {self.full_name(name): value for name, value in weights.items()}

    def state(self) -> dict[str, Tensor]:
        """The weights that it has, by name in the model."""
        return {self.full_name(name): value for name, value in self.module.state_dict().items()}


def pretrained_parts(model: nn.Module) -> Iterator[PretrainedPart]:
    """The modules whose ``init_cfg`` is of type 'Pretrained', outer ones first."""
    for name, module in model.named_modules():
        if not isinstance(module, BaseModule) or not module.init_cfg:
            continue
        files = tuple(_files(module.init_cfg, f'model.{name}' if name else 'model'))
        if files:
            yield PretrainedPart(name=name, module=module, files=files)


def compare_values(
    parts: Sequence[PretrainedPart], files: Sequence[Mapping[str, Tensor]]
) -> list[Fit]:
    """How the weights of modules are those of their files: by name, shape and value.

    Args:
        parts: of one model, outer ones first, which load last, so that their files win.
        files: what `PretrainedPart.read` gave for each.
    """
    expected: dict[str, Tensor] = {}
    for part, weights in reversed(list(zip(parts, files, strict=True))):
        expected |= fitting(part.state(), weights)
    return [compare(part.state(), w, expected) for part, w in zip(parts, files, strict=True)]


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
