"""Which weights of a model its ``init_cfg`` takes from files, and whether they got there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

# A counter that nothing reads unless a batch norm has momentum=None; old files lack it.
_COUNTER = 'num_batches_tracked'


@dataclass(frozen=True, kw_only=True)
class PretrainedPart:
    """A module whose ``init_cfg`` names a file.

    Attributes:
        name: of the module in the model, '' for the model itself.
        module: the module.
        init_cfg: its settings of type 'Pretrained', in order.
    """

    name: str
    module: nn.Module
    init_cfg: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        """The config key of the module."""
        return f'model.{self.name}' if self.name else 'model'

    def full_name(self, weight: str) -> str:
        """A weight's name in the model."""
        return f'{self.name}.{weight}' if self.name else weight


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a module has of its file's weights, by name in the model.

    Attributes:
        total: weights of the module; counters of batch norms are none.
        missing: those that the file does not have.
        other_shape: those that the file has in another shape.
        changed: those that are in the file and not in the module.
        unused: names of the file that the module does not have.
    """

    total: int
    missing: tuple[str, ...]
    other_shape: tuple[str, ...]
    changed: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def lacking(self) -> tuple[str, ...]:
        """All that did not come from the file."""
        return self.missing + self.other_shape + self.changed

    def counts(self) -> str:
        """The report in one line."""
        return (
            f'{self.total - len(self.lacking)} of {self.total} weights ({len(self.missing)} '
            f'missing{listed(self.missing)}, {len(self.other_shape)} of another '
            f'shape{listed(self.other_shape)}, {len(self.changed)} with other '
            f'values{listed(self.changed)}; {len(self.unused)} in the file not '
            f'used{listed(self.unused)})'
        )


def pretrained_parts(model: nn.Module) -> Iterator[PretrainedPart]:
    """The modules whose ``init_cfg`` is of type 'Pretrained', outer ones first."""
    for name, module in model.named_modules():
        if not isinstance(module, BaseModule) or not module.init_cfg:
            continue
        settings = [module.init_cfg] if isinstance(module.init_cfg, Mapping) else module.init_cfg
        found = tuple(cfg for cfg in settings if cfg['type'] in ('Pretrained', PretrainedInit))
        if found:
            yield PretrainedPart(name=name, module=module, init_cfg=found)


def is_local(checkpoint: str) -> bool:
    """Whether MMEngine reads it as a path of this machine."""
    return '://' not in checkpoint


def read_part(part: PretrainedPart) -> dict[str, Tensor]:
    """The weights that MMEngine takes for a module, from the files that it names.

    Read as MMEngine reads them when it initialises the module, with all addresses that it knows
    (for those of the web every rank has to take part).

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it cannot be read.
        ValueError: it holds nothing under the prefix.
    """
    weights: dict[str, Tensor] = {}
    for cfg in part.init_cfg:
        weights |= _read(str(cfg['checkpoint']), cfg.get('prefix'), part.key)
    return weights


def expected_values(
    parts: list[PretrainedPart], files: list[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What the weights of the model should be, by name.

    An outer module loads after those in it, so that its file wins.
    """
    expected: dict[str, Tensor] = {}
    for part, weights in reversed(list(zip(parts, files, strict=True))):
        own = part.module.state_dict()
        expected |= {
            part.full_name(name): value
            for name, value in weights.items()
            if name in own and own[name].shape == value.shape
        }
    return expected


def compare(
    part: PretrainedPart, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Fit:
    """Compares a module with the weights of its file.

    Args:
        part: the module.
        weights: of its file.
        expected: of the whole model, as `expected_values` gives them.
    """
    own = {name: v for name, v in part.module.state_dict().items() if not name.endswith(_COUNTER)}
    fitting = [name for name in own if name in weights and weights[name].shape == own[name].shape]
    found = {
        'missing': [name for name in own if name not in weights],
        'other_shape': [name for name in own if name in weights and name not in fitting],
        'changed': [
            name for name in fitting if not _equal(own[name], expected[part.full_name(name)])
        ],
    }
    names = {kind: tuple(map(part.full_name, names)) for kind, names in found.items()}
    unused = [name for name in weights if name not in own and not name.endswith(_COUNTER)]
    return Fit(total=len(own), unused=tuple(unused), **names)


def listed(names: tuple[str, ...], limit: int = 4) -> str:
    """The first names in brackets; nothing if there are none."""
    if not names:
        return ''
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f': {", ".join(names[:limit])}{more}'


def _equal(own: Tensor, value: Tensor) -> bool:
    return torch.equal(own.detach().cpu(), value.to(device='cpu', dtype=own.dtype))


def _read(checkpoint: str, prefix: str | None, key: str) -> dict[str, Tensor]:
    if is_local(checkpoint) and not Path(checkpoint).expanduser().is_file():
        raise FileNotFoundError(
            f'There is no file {checkpoint} for {key} to start from (config key '
            f'{key}.init_cfg.checkpoint; relative paths start at {Path.cwd()}). To start from '
            f'random weights: --cfg-options {key}.init_cfg=None.'
        )
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    except Exception as error:  # a damaged file can trip the reader in any way
        reason = str(error).strip().split('\n')[0] or type(error).__name__
        raise RuntimeError(
            f'{checkpoint}, from which {key} is to start, cannot be read ({reason}; config key '
            f'{key}.init_cfg.checkpoint).'
        ) from error
    state = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    # as MMEngine does: the prefix of DDP goes where no other is asked for
    if prefix is None:
        return {name.removeprefix('module.'): value for name, value in tensors.items()}
    dotted = prefix if prefix.endswith('.') else f'{prefix}.'
    found = {
        name.removeprefix(dotted): value
        for name, value in tensors.items()
        if name.startswith(dotted)
    }
    if not found:
        held = Counter(name.split('.')[0] for name in tensors).most_common(6)
        raise ValueError(
            f"{checkpoint} holds no weights under '{dotted}', from which {key} is to start; it "
            f'holds {", ".join(f"{name} ({count})" for name, count in held) or "none at all"}. '
            f'Change the config key {key}.init_cfg.prefix.'
        )
    return found
