"""The machine, and small computations on its devices, as a process of its own.

    python -m hgkd_mm.doctor.probes      # started by report.probe_apart

Packages are imported inside functions, so that a broken one can be reported.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path

from hgkd_mm.utils.environment import attempt, check_running, has_ops, notes, unseen_gpus
from hgkd_mm.utils.processor import read_processor, usable_cores

from .report import BEGIN, SECTION, Section

GB = 1e9
# Relative to the largest value: cuDNN rounds float32 convolutions to TF32 unless told otherwise.
TOLERANCE = 1e-2
# Of MMEngine's list, what is long or always the same.
_LEFT_OUT = ('sys.platform', 'MUSA available', 'numpy_random_seed', 'PyTorch compiling details')


def machine(work_dirs: Path) -> Section:
    """Processor, memory, disk, and MMEngine's list of Python, GPUs, CUDA and compilers.

    Args:
        work_dirs: Where runs are written; it need not exist.
    """
    section = Section(title='Machine')
    processor = read_processor()
    units = ', '.join(processor.bfloat16) or 'emulation'
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    there = next(f for f in (work_dirs, *work_dirs.absolute().parents) if f.exists())
    free = shutil.disk_usage(there).free
    section.facts |= {
        'System': f'{platform.platform()}, {sys.executable}',
        'Processor': f'{processor.name}, {usable_cores()} cores, bfloat16 by {units}',
        'Memory': f'{memory / GB:.1f} GB',
        f'Disk of {work_dirs}/': f'{free / GB:.1f} GB free',
    }
    if free < GB:
        section.problems.append(
            f'{free / GB:.2f} GB are free on the disk of {work_dirs}, and the checkpoints of one '
            'run take more: free some, or write elsewhere with --work-dir DIR.'
        )
    shared = Path('/dev/shm')
    if shared.exists() and (left := shutil.disk_usage(shared).free) < GB:
        section.notes.append(
            f'/dev/shm has {left / GB:.2f} GB free, and data loading processes exchange images '
            'through it: if they end with a bus error, start the container with --shm-size=8g, or '
            'set train_dataloader.num_workers=0 and train_dataloader.persistent_workers=False.'
        )
    if problem := attempt("MMEngine's collect_env", partial(_collect_env, section)):
        section.notes.append(problem)
    return section


def what_runs(begin: Callable[[str], None]) -> Section:
    """Runs a model of each package, an mmcv op, and a sparse step of each engine and device.

    Args:
        begin: Is called with the name of what is tried next.
    """
    section = Section(title='What runs')
    begin("importing the packages and running mmcv's ops")
    ops = has_ops()
    section.problems += check_running(ops=ops)
    if not section.problems:
        section.facts['models'] = 'mmpretrain, mmseg' + (', mmdet' if ops else '') + ' build one'
    if attempt('import torch', partial(import_module, 'torch')):
        return section
    import torch

    begin("mmcv's ops on the GPU")
    section.notes += notes(ops=ops)
    section.problems += [problem] if (problem := unseen_gpus()) else []
    engines = _engines(section)
    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        for engine in engines:
            what = f'sparse step, {engine}, {device}'
            begin(what)
            check = partial(_compare, section, what, device=device, engine=engine)
            problem = attempt(what.capitalize(), check)
            section.problems += [problem] if problem else []
    return section


def sparse_error(*, device: str, engine: str = 'tiles') -> float:
    """Runs a convolution, norm and activation on a masked image, forward and backward.

    Args:
        device: Where it is run.
        engine: Of hgkd_mm.sparse, as in the config key model.engine.

    Returns:
        Largest difference of the map and the weight's gradient to the engine 'masked_dense' in
        float64 on the CPU, relative to the largest value.
    """
    import torch
    from torch import nn

    from hgkd_mm.sparse import CellMask, sparsify

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 48, generator=generator)
    kernel = torch.randn(8, 3, 3, 3, generator=generator)
    mask = CellMask.random(batch=2, grid=(4, 6), mask_ratio=0.5, generator=generator)

    def run(engine: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        net.to(device, dtype)
        nn.init.zeros_(net[0].bias)
        net[0].weight.data.copy_(kernel)
        out = net(sparsify(images.to(device, dtype), mask, engine=engine)).to_dense()
        out.square().sum().backward()
        return [out.detach(), net[0].weight.grad]

    got, expected = run(engine, device, torch.float32), run('masked_dense', 'cpu', torch.float64)
    pairs = zip(got, expected, strict=True)
    return max(float((g.cpu().double() - e).abs().max() / e.abs().max()) for g, e in pairs)


def main() -> None:
    """Prints what is tried before it is tried, and each section when it is known."""

    def begin(what: str) -> None:
        print(f'\n{BEGIN}{what}', flush=True)

    begin('looking at the machine')
    print(f'\n{SECTION}{json.dumps(asdict(machine(Path("work_dirs"))))}', flush=True)
    section = what_runs(begin)
    print(f'\n{SECTION}{json.dumps(asdict(section))}', flush=True)


def _collect_env(section: Section) -> None:
    from mmengine.utils.dl_utils import collect_env

    found = collect_env()
    section.facts |= {key: str(value) for key, value in found.items() if key not in _LEFT_OUT}


def _compare(section: Section, what: str, *, device: str, engine: str) -> None:
    error = sparse_error(device=device, engine=engine)
    if not error <= TOLERANCE:  # NaN too
        raise RuntimeError(f'a result is off by {error:.1g}, allowed are {TOLERANCE:.0e}')
    section.facts[what] = f'max error {error:.0e}'


def _engines(section: Section) -> list[str]:
    """tiles, and spconv where one of its wheels is installed and works."""
    from hgkd_mm.sparse.spconv import check_wheels, installed_wheels

    wheels = installed_wheels()
    try:
        if wheels:
            check_wheels(wheels)
    except ImportError as error:
        section.notes.append(str(error))
        wheels = []
    return ['tiles', 'spconv'] if wheels else ['tiles']


if __name__ == '__main__':
    main()
