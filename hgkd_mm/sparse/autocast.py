"""The type that autocast would give a matrix product, for functions it does not know."""

from __future__ import annotations

import torch

_BY_DEVICE = tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 4)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Autocast's type on this kind of device, or None where autocast is off."""
    if _BY_DEVICE:
        on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if on else None
    if device_type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
