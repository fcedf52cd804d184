"""Devices named on a command line."""

from __future__ import annotations

import torch


def check_device(device: str) -> None:
    """Makes sure that tensors can be put on a device, before any work is done.

    Args:
        device: 'cpu', 'cuda', 'cuda:1', ...

    Raises:
        RuntimeError: there is no such device; the sentence names the flag ``--device``.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # what it is depends on how torch was built
        reason = str(error).split('\n')[0]
        raise RuntimeError(
            f'There is no device {device!r} here ({reason}): set --device.'
        ) from error
