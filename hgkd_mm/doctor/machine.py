"""The machine: Python, processor, memory, disk, GPUs and how processes talk.

torch is imported inside functions, so that a broken one can be reported.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from hgkd_mm.utils.env_check import SETUP
from hgkd_mm.utils.processor import read_processor, usable_cores

from .section import Section

GB = 1e9


def machine(work_dirs: Path) -> Section:
    """Looks at the machine.

    Args:
        work_dirs: Where runs are written; it need not exist.
    """
    section = Section(title='Machine')
    section.facts += [
        ('Python', f'{platform.python_version()}, {sys.executable}'),
        ('System', platform.platform()),
        ('Processor', processor()),
    ]
    shm = Path('/dev/shm')
    look_at_memory(section, _read('/proc/meminfo'), shared=_free(shm) if shm.exists() else None)
    look_at_disk(section, work_dirs)
    try:
        import torch
    except Exception:  # the section on what runs says what is wrong with it
        return section
    _look_at_gpus(section)
    backends = [
        name
        for name in ('gloo', 'nccl')
        if torch.distributed.is_available() and torch.distributed.is_backend_available(name)
    ]
    section.facts.append(('Processes talk by', ', '.join(backends) or 'nothing'))
    if torch.cuda.device_count() > 1 and 'nccl' not in backends:
        section.problems.append(
            f'There are {torch.cuda.device_count()} GPUs and this torch has no NCCL, which '
            f'tools/dist_train.sh needs to use more than one: `{SETUP}` installs one that has it.'
        )
    return section


def processor(cpuinfo: str | None = None) -> str:
    """Model, usable cores, and whether it computes in bfloat16.

    Args:
        cpuinfo: The text of /proc/cpuinfo, empty where there is none; None reads it.
    """
    found = read_processor(cpuinfo)
    units = ', '.join(found.bfloat16)
    precision = f'bfloat16 by {units}' if units else 'bfloat16 emulated only'
    return f'{found.name}, {usable_cores()} cores for this process, {precision}'


def look_at_memory(section: Section, meminfo: str, *, shared: float | None) -> None:
    """Adds main memory and the shared memory that data loading needs.

    Args:
        section: Is added to.
        meminfo: The text of /proc/meminfo; empty where there is none.
        shared: Free bytes of /dev/shm; None where there is none.
    """
    sizes = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(':')
        sizes[name] = float(value.split()[0]) * 1024 / GB
    if 'MemTotal' in sizes:
        available = sizes.get('MemAvailable', 0.0)
        section.facts.append(
            ('Memory', f'{sizes["MemTotal"]:.1f} GB, {available:.1f} GB of it available')
        )
    if shared is not None and shared < GB:
        section.notes.append(
            f'/dev/shm has {shared / GB:.2f} GB free, and data loading processes hand images over '
            'through it: if they die with a bus error, start the container with --shm-size=8g, or '
            'train with --cfg-options train_dataloader.num_workers=0 '
            'train_dataloader.persistent_workers=False.'
        )


def look_at_disk(section: Section, folder: Path) -> None:
    """Adds the space that is free for runs.

    Args:
        section: Is added to.
        folder: Where runs are written; it need not exist.
    """
    free = _free(folder)
    section.facts.append((f'Disk of {folder.name}/', f'{free / GB:.1f} GB free'))
    if free < GB:
        section.problems.append(
            f'{free / GB:.2f} GB are free on the disk of {folder}, and the checkpoints of one run '
            'take more: free some, or write elsewhere with --work-dir DIR.'
        )


def gpu_problem(*, drivers: list[str], visible: str | None, cuda: str | None) -> str | None:
    """Says why torch sees no GPU although the machine has one.

    Args:
        drivers: The driver's version of each GPU, from nvidia-smi.
        visible: The variable CUDA_VISIBLE_DEVICES; None if it is not set.
        cuda: The CUDA version that torch was built for; None for CPU builds.

    Returns:
        One sentence with its cure, or None if there is nothing to cure.
    """
    if not drivers or visible in ('', '-1'):
        return None
    seen = f'nvidia-smi lists {len(drivers)} GPU(s) and torch sees none'
    if cuda is None:
        return f'{seen}: this torch is built for the CPU only; `{SETUP}` installs the tested one.'
    return (
        f'{seen}: torch was built for CUDA {cuda}, and the driver is {drivers[0]}. Update the '
        f'driver, or install a torch for the CUDA version that nvidia-smi prints.'
    )


def _look_at_gpus(section: Section) -> None:
    import torch

    drivers = _drivers()
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if not torch.cuda.is_available():
        shown = f' (CUDA_VISIBLE_DEVICES={visible})' if visible is not None else ''
        section.facts.append(('GPU', f'none that torch sees{shown}'))
        problem = gpu_problem(drivers=drivers, visible=visible, cuda=torch.version.cuda)
        section.problems += [problem] if problem else []
        return
    driver = drivers[0] if drivers else 'unknown'
    section.facts.append(('CUDA', f'{torch.version.cuda} (of torch), driver {driver}'))
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        free, _ = torch.cuda.mem_get_info(index)
        section.facts.append(
            (
                f'GPU {index}',
                f'{gpu.name}, {gpu.total_memory / GB:.1f} GB ({free / GB:.1f} GB free), compute '
                f'capability {gpu.major}.{gpu.minor}',
            )
        )


def _drivers() -> list[str]:
    """The driver's version of each GPU of the machine, whether torch sees it or not."""
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.split() if result.returncode == 0 else []


def _free(folder: Path) -> float:
    """Free bytes of the disk that a folder is on, or would be on once made."""
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    return float(shutil.disk_usage(there).free)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ''
