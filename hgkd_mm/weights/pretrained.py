"""Which weights of a model its ``init_cfg`` takes from files, and whether they got there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        checkpoint: path, or an address that MMEngine reads.
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
        key = f'config key {self.key}'
        try:
            content = CheckpointLoader.load_checkpoint(
                self.checkpoint, map_location='cpu', logger='silent'
            )
        except Exception as error:  # a damaged file can trip the reader in any way
            start = self.key.partition('.init_cfg')[0]
            raise CheckpointError(
                f'{reason_of(error).rstrip(".")}: {start} cannot start from {self.checkpoint} '
                f'({key}).'
            ) from error
        tensors = find_tensors(content, self.checkpoint, key=key, containers=CONTAINERS[:1])
        if self.prefix is None:
            return without_wrapper(tensors)
        prefix = f'{self.prefix.removesuffix(".")}.'
        key = f'config key {self.prefix_key}'
        return under_prefix(tensors, prefix, source=self.checkpoint, key=key)


def pretrained_files(model: nn.Module) -> dict[str, list[PretrainedFile]]:
    """The files that ``init_cfg`` of type 'Pretrained' names, by module, outer ones first."""
    found = {}
    for name, module in model.named_modules():
        init_cfg = (module.init_cfg if isinstance(module, BaseModule) else None) or {}
        key = f'{module_key(name)}.init_cfg'
        listed = not isinstance(init_cfg, Mapping)
        found[name] = [
            PretrainedFile(
                checkpoint=str(settings['checkpoint']),
                prefix=settings.get('prefix'),
                key=f'{key}.{index}.checkpoint' if listed else f'{key}.checkpoint',
            )
            for index, settings in enumerate(init_cfg if listed else [init_cfg])
            if settings.get('type') in ('Pretrained', PretrainedInit)
        ]
    return {name: files for name, files in found.items() if files}


def compare_values(model: nn.Module, files: Mapping[str, list[PretrainedFile]]) -> dict[str, Fit]:
    """How the weights of modules are those of their files: by name, shape and value.

    Args:
        model: the initialized model.
        files: what `pretrained_files` gave.
    """
    own, found, expected = {}, {}, {}
    # outer modules load last, so that their files win
    for name, named in reversed(files.items()):
        start = f'{name}.' if name else ''
        own[name] = {k: v for k, v in model.state_dict().items() if k.startswith(start)}
        found[name] = {f'{start}{k}': v for file in named for k, v in file.read().items()}
        expected |= fitting(own[name], found[name])
    return {name: compare(own[name], found[name], expected) for name in files}


def module_key(name: str) -> str:
    """The config key of a module of the model."""
    return f'model.{name}' if name else 'model'
