"""What the figures were measured on."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import numpy as np
import timm
import torch

from hgkd_mm.utils.processor import read_processor, usable_cores


def describe(device: str) -> dict[str, str | int | None]:
    """Device, driver, versions, host, date and commit; None is what the machine does not tell.

    Args:
        device: 'cpu' or a CUDA device.
    """
    cuda = device.startswith('cuda')
    processor = read_processor()
    root = Path(__file__).resolve().parents[3]
    properties = torch.cuda.get_device_properties(device) if cuda else None
    return {
        'device': properties.name if cuda else processor.name,
        'device_memory_gib': round(properties.total_memory / 2**30, 1) if cuda else None,
        'driver': output('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader')
        if cuda
        else None,
        'torch': torch.__version__,
        'cuda': torch.version.cuda if cuda else None,
        'cudnn': str(torch.backends.cudnn.version()) if cuda else None,
        'timm': timm.__version__,
        'numpy': np.__version__,
        'python': platform.python_version(),
        'cpu': processor.name,
        'cores': usable_cores(),
        'threads': torch.get_num_threads(),
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'commit': output('git', '-C', str(root), 'rev-parse', 'HEAD'),
    }


def output(*command: str) -> str | None:
    """First line of what a command prints; None if it is missing, fails or says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split('\n')
    return lines[0].strip() or None
