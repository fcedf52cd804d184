"""Loading exported weights into the target's network, all of them, and saying what fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hgkd_mm.weights.fit import Fit, fitting, listed, load_whole


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What became of every weight.

    Attributes:
        fit: of the target's network. What is missing belongs to its classifier, which
            pre-training has none of, and nothing is unused: all else is refused.
        left_out: weights of the source that the target has no place for, with the reason.
    """

    fit: Fit
    left_out: Mapping[str, str]

    def lines(self) -> list[str]:
        """The report as text."""
        missing = self.fit.missing
        classifier = f' (of the classifier: {listed(missing)})' if missing else ''
        lines = [
            f'loaded      {self.fit.loaded} of {self.fit.total}',
            f'missing     {len(missing)}{classifier}',
            f'unexpected  {len(self.fit.unused)}',
        ]
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines.append(f'left out    {len(names)} ({listed(names)}): {reason}')
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
    report: ExportReport


def load_converted(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    classifier: tuple[str, ...] = (),
    left_out: Mapping[str, str] | None = None,
) -> tuple[dict[str, Tensor], ExportReport]:
    """Fills the target's network.

    A weight may differ from the network's own in axes of length 1, as those of a linear layer
    and of a 1x1 convolution do. Float weights become the network's precision. Counters of batch
    norms go where the source has them.

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
    shaped = {name: _as_own(value, own.get(name)) for name, value in weights.items()}
    wrong = (
        f'The weights do not fit {what} of the config (in the checkpoint, or given with --config), '
        'and nothing was written'
    )
    fit = load_whole(network, shaped, what=wrong, absent=classifier)
    network.train(False)
    # a view would take all that it is a view of into the file
    fitted = {
        name: value.to(own[name].dtype).clone(memory_format=torch.contiguous_format)
        for name, value in fitting(own, shaped).items()
    }
    return fitted, ExportReport(fit=fit, left_out=dict(left_out or {}))


def _as_own(value: Tensor, own: Tensor | None) -> Tensor:
    """In the shape of the network's own if only axes of length 1 differ."""
    if own is None or _longer(value) != _longer(own):
        return value
    return value.reshape(own.shape)


def _longer(value: Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]
