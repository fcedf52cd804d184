"""Loading exported weights into the target's network, all of them, and saying what fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every weight.

    Attributes:
        loaded: names that the network took.
        missing: names of the network's classifier, which pre-training has none of.
        unexpected: names that the network does not know; empty for what could be exported.
        left_out: weights of the source that the target has no place for, with the reason.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    left_out: Mapping[str, str]

    def lines(self) -> list[str]:
        """The report as text."""
        lines = [
            f'loaded      {len(self.loaded)} of {len(self.loaded) + len(self.unexpected)}',
            f'missing     {len(self.missing)}{_listed(self.missing, "of the classifier: ")}',
            f'unexpected  {len(self.unexpected)}{_listed(self.unexpected)}',
        ]
        for reason in dict.fromkeys(self.left_out.values()):
            names = tuple(name for name, why in self.left_out.items() if why == reason)
            lines.append(f'left out    {len(names)}{_listed(names)}: {reason}')
        return lines


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """What a library has for a backbone of mmpretrain.

    Attributes:
        name: of the network in the library.
        arguments: that it is made with.
        rename: from mmpretrain's name of a weight to the library's.
        classifier: prefixes of the library's names that pre-training has no weights for.
        left_out: mmpretrain's names that the library has no place for, with the reason.
    """

    name: str
    rename: Callable[[str], str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classifier: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that have a place, in the library's naming."""
        return {self.rename(k): v for k, v in weights.items() if k not in self.left_out}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A backbone in the shape of its target.

    Attributes:
        network: the target's network with the weights, in eval mode.
        weights: what goes into the file, in the target's naming.
        made_by: how the network is made, as Python.
        load: what loads the file; ``{file}`` stands for its path, ``{weights}`` for the
            expression that reads it.
        report: what was loaded.
    """

    network: nn.Module
    weights: Mapping[str, Tensor]
    made_by: str
    load: str
    report: LoadReport


def load_converted(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    classifier: tuple[str, ...] = (),
    left_out: Mapping[str, str] | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Fills the target's network.

    A weight may differ from the network's own in axes of length 1, as those of a linear layer
    and of a 1x1 convolution do. Float weights become the network's precision.

    Args:
        network: the target's network; changed in place and set to eval mode.
        weights: name to tensor, in the target's naming.
        what: the network, for messages.
        classifier: prefixes of the names that may be missing.
        left_out: what the target has no place for, for the report.

    Returns:
        The weights as they were loaded, and the report.

    Raises:
        ValueError: a weight is missing, unknown or of the wrong shape; names and counts them.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    fitted, wrong = {}, []
    for name, value in weights.items():
        if name in own and _same_axes(value, own[name]):
            shaped = value.reshape(own[name].shape).to(own[name].dtype)
            # a view would take all that it is a view of into the file
            fitted[name] = shaped.clone(memory_format=torch.contiguous_format)
        elif name in own:
            wrong.append(f'{name} is {tuple(value.shape)}, needed {tuple(own[name].shape)}')
    absent = [name for name in missing if not name.startswith(classifier)]
    if absent or unexpected or wrong:
        raise ValueError(
            f'The weights do not fit {what}, and nothing was written: of its {len(own)} weights '
            f'{len(absent)} are missing{_listed(absent)}, {len(wrong)} have another '
            f'shape{_listed(wrong)}, and {len(unexpected)} are unknown to it'
            f'{_listed(unexpected)}. The config that names the network (in the checkpoint, or '
            'given with --config) is probably not that of the weights.'
        )
    network.load_state_dict(fitted, strict=not missing)
    network.train(False)
    report = LoadReport(
        loaded=tuple(fitted),
        missing=tuple(missing),
        unexpected=(),
        left_out=dict(left_out or {}),
    )
    return fitted, report


def _same_axes(value: Tensor, own: Tensor) -> bool:
    return [size for size in value.shape if size != 1] == [size for size in own.shape if size != 1]


def _listed(names: list[str] | tuple[str, ...], intro: str = '', limit: int = 6) -> str:
    if not names:
        return ''
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f' ({intro}{", ".join(names[:limit])}{more})'
