"""Loading exported weights into the target's network, all of them, and saying what fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgkd_mm.weights.fit import Fit, fitting, load_whole

from .matching import long_axes


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A backbone in the shape of its target.

    Attributes:
        network: the target's network with the weights, in eval mode.
        weights: what goes into the file, in the target's naming.
        fit: of the network. What is missing belongs to its classifier, which pre-training has
            none of, and nothing is unused: all else is refused.
        made_by: how the network is made, as Python.
        left_out: weights of the source that the target has no place for.
    """

    network: nn.Module
    weights: Mapping[str, Tensor]
    fit: Fit
    made_by: str
    left_out: tuple[str, ...] = ()


def fill(
    network: nn.Module, weights: Mapping[str, Tensor], *, what: str, absent: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], Fit]:
    """Loads all weights into the target's network, which is in eval mode afterwards.

    A weight may differ from the network's own in axes of length 1. Float weights become the
    network's precision. Counters of batch norms go where the source has them.

    Args:
        network: the target's network.
        weights: name to tensor, in the target's naming.
        what: the network, for messages.
        absent: names that may be missing.

    Returns:
        The weights as they were loaded, and how they fit.

    Raises:
        ValueError: a weight is missing, unknown or of the wrong shape; names and counts them.
    """
    own = network.state_dict()
    shaped = {
        name: value.reshape(own[name].shape)
        if name in own and long_axes(value) == long_axes(own[name])
        else value
        for name, value in weights.items()
    }
    wrong = (
        f'The weights do not fit {what} of the config (in the checkpoint, or given with --config), '
        'and nothing was written'
    )
    fit = load_whole(network, shaped, what=wrong, absent=absent)
    network.train(False)
    # a view would take all that it is a view of into the file
    fitted = {
        name: value.to(own[name]).clone(memory_format=torch.contiguous_format)
        for name, value in fitting(own, shaped).items()
    }
    return fitted, fit
