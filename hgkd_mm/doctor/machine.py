"""The installed packages, the machine, and small computations on its devices.

Packages are imported inside functions, so that a broken one can be reported.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import warnings
from importlib import import_module
from pathlib import Path

from hgkd_mm.utils import environment
from hgkd_mm.utils.process import cpu_has_bfloat16, processor_name, usable_cores

from .section import Section

GB = 1e9
_PACKAGES = ('mmpretrain', 'mmseg', 'mmdet')
# Relative to the largest value: cuDNN rounds float32 convolutions to TF32 unless told otherwise.
TOLERANCE = 1e-2
# Pinned for compiling mmcv, for tests and for style: training does without them.
NOT_NEEDED_TO_RUN = frozenset(
    {'hypothesis', 'ninja', 'psutil', 'pytest', 'pytest-xdist', 'ruff', 'setuptools', 'wheel'}
)
# Of MMEngine's list, what is long or always the same.
_LEFT_OUT = ('sys.platform', 'MUSA available', 'numpy_random_seed', 'PyTorch compiling details')


def look_at_packages(root: Path) -> Section:
    """Compares installed versions with the tested ones in the requirements files of ``root``.

    Another version is a note: whether it works is seen when it is run.
    """
    section = Section(title='Packages')
    installed = environment.installed_versions()
    requirements = environment.stack_of(installed)
    pins = environment.read_pins(root / requirements)
    needed = {name: pins[name] for name in pins if name not in NOT_NEEDED_TO_RUN}
    section.problems, section.notes = environment.check_versions(needed, installed)
    for name in needed:
        if name in ('numpy', 'torch', 'torchvision') or name.startswith(('mm', 'onedl-')):
            section.facts[name] = environment.version_of(name, installed) or 'not installed'
    tested = not section.problems and not section.notes
    section.facts['tested stack'] = f'{"yes:" if tested else "no; the nearest is"} {requirements}'
    return section


def look_at_machine(work_dirs: Path) -> Section:
    """Processor, memory, disk of ``work_dirs``, and MMEngine's list of Python, GPUs and CUDA."""
    section = Section(title='Machine')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    there = next(f for f in (work_dirs, *work_dirs.absolute().parents) if f.exists())
    free = shutil.disk_usage(there).free
    bfloat16 = 'bfloat16' if cpu_has_bfloat16() else 'bfloat16 by emulation'
    section.facts |= {
        'System': f'{platform.platform()}, {sys.executable}',
        'Processor': f'{processor_name()}, {usable_cores()} cores, {bfloat16}',
        'Memory': f'{memory / GB:.1f} GB',
        f'Disk of {work_dirs}/': f'{free / GB:.1f} GB free',
    }
    if free < GB:
        section.problems.append(
            f'{free / GB:.2f} GB are free on the disk of {work_dirs}, and the checkpoints of one '
            'run take more: free some, or write elsewhere with --work-dir DIR.'
        )
    with section.attempt('Looking for a GPU'):
        _look_for_gpu(section)
    with section.attempt("MMEngine's collect_env", required=False):
        from mmengine.utils.dl_utils import collect_env

        found = collect_env()
        section.facts |= {key: str(value) for key, value in found.items() if key not in _LEFT_OUT}
    return section


def what_runs() -> Section:
    """Imports the packages, and runs mmcv's nms and a sparse step on each device."""
    section = Section(title='What runs')
    ops = environment.has_ops()
    with section.attempt('Importing torch and torchvision'):
        import_module('torchvision')
    if section.problems:
        return section
    import torch

    devices = ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',)
    others = [] if ops else [p for p in _PACKAGES if environment.uses_ops(p)]
    if others:
        section.notes.append(
            f'mmcv is pure Python, so {" and ".join(others)} cannot be imported: '
            f'`{environment.setup_command("--ops")}` compiles them.'
        )
    for device in devices if ops else ():
        # Pre-training does not need it on a GPU; Mask R-CNN does.
        with section.attempt(f'mmcv.ops.nms on {device}', required=device == 'cpu'):
            run_nms(device)
            section.facts[f'mmcv.ops.nms, {device}'] = 'right'
    for package in (p for p in _PACKAGES if p not in others):
        with section.attempt(f'Importing {package}'):
            import_module(f'{package}.models')
            import_module(f'{package}.datasets')  # it needs packages that the models do not
            section.facts[package] = 'is imported'
    for device in devices:
        with section.attempt(f'Sparse step, tiles, {device}'):
            _compare(section, device, 'tiles')
        if environment.version_of('spconv-cu120', environment.installed_versions()):
            with section.attempt(f'Sparse step, spconv, {device}', required=False):
                _compare(section, device, 'spconv')
    return section


def run_nms(device: str) -> None:
    """Runs mmcv's non-maximum suppression on three boxes."""
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
    _, keep = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
    if keep.tolist() != [0, 2]:
        raise RuntimeError(f'nms kept boxes {keep.tolist()} where [0, 2] is right')


def sparse_error(*, device: str, engine: str) -> float:
    """Runs a convolution, norm and activation on a masked image, forward and backward.

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


def _compare(section: Section, device: str, engine: str) -> None:
    error = sparse_error(device=device, engine=engine)
    if not error <= TOLERANCE:  # NaN too
        raise RuntimeError(f'a result is off by {error:.1g}, allowed are {TOLERANCE:.0e}')
    section.facts[f'sparse step, {engine}, {device}'] = f'max error {error:.0e}'


def _look_for_gpu(section: Section) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        import torch

        available = torch.cuda.is_available()
    if not available:
        # torch warns, the first time, where there is a GPU and the driver does not fit.
        reasons = [str(w.message).split('\n')[0] for w in said if 'CUDA' in str(w.message)]
        section.notes.append(
            f'torch {torch.__version__} sees no CUDA device{": " if reasons else ""}'
            f'{"; ".join(reasons)}: everything runs on the CPU.'
        )
    elif torch.cuda.get_device_capability()[0] < 8:
        section.notes.append(
            'The GPU only emulates bfloat16, which is slower than float32: in place of --amp take '
            'optim_wrapper.type=AmpOptimWrapper for float16.'
        )
