"""What is wrong with the installed packages, one sentence each, with the command that repairs it.

Imports the standard library only, so that a broken torch or a missing package can be reported;
each check imports what it tries.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

SETUP = 'bash tools/setup_env.sh'
STACKS = ('requirements.txt', 'requirements/openmmlab.txt')
FORKS = {
    'mmcv': 'onedl-mmcv',
    'mmengine': 'onedl-mmengine',
    'mmpretrain': 'onedl-mmpretrain',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}
# OpenMMLab's mmcv without compiled ops; OneDL's has one name with ops and without.
PURE_MMCV = 'mmcv-lite'
# A model of each package, by its file in configs/_base_/models; mmdet needs mmcv's ops.
_MODELS = {'mmpretrain': 'resnet18.py', 'mmseg': 'upernet_r50.py', 'mmdet': 'mask-rcnn_r50_fpn.py'}
_CURES = (
    (
        r'operator torchvision::nms does not exist',
        'torch and torchvision come from different builds (a CPU-only torch beside the torchvision '
        f'of PyPI, for example): install both from PyPI, as pinned, with `{SETUP}`',
    ),
    (
        r'libGL\.so|libgthread',
        'opencv-python is installed and this machine has no libGL: `pip uninstall -y opencv-python '
        f'opencv-python-headless`, then `{SETUP}`',
    ),
    (
        r'no kernel image',
        f'it was compiled without code for this GPU: compile mmcv on this machine (`{SETUP} '
        '--rebuild-mmcv`); if torch itself fails, take a build with the GPU in '
        '`torch.cuda.get_arch_list()`',
    ),
    (
        r'undefined symbol',
        'mmcv was compiled for another torch than the one installed: `'
        f'{SETUP} --rebuild-mmcv` compiles it anew',
    ),
    (
        r'np\.|numpy\.(core|dtype)|compiled using NumPy',
        f'the installed numpy does not fit the packages compiled with another one: `{SETUP}`',
    ),
    (r'is used but incompatible', f'two versions that do not fit were mixed: `{SETUP}`'),
    (r'No module named', f'a package is missing: `{SETUP}`'),
)


class MissingOpsError(RuntimeError):
    """mmcv is pure Python here, and what was asked for needs its compiled ops."""


# -- versions -------------------------------------------------------------------------------------


def read_pins(requirements: Path) -> dict[str, str]:
    """Versions by name of the ``name==version`` lines, those of included ``-r`` files too.

    Lines with an environment marker (``; sys_platform ...``) are left out: whether they apply is
    pip's decision.

    Raises:
        FileNotFoundError: The file, or one that it includes, does not exist.
    """
    if not requirements.is_file():
        raise FileNotFoundError(
            f'The requirements file {requirements} does not exist; give one with --requirements.'
        )
    pins: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            pins.update(read_pins(requirements.parent / line[3:].strip()))
        elif '==' in line and ';' not in line:
            name, version = line.split('==')
            pins[name.strip()] = version.strip()
    return pins


def installed_versions() -> dict[str, str]:
    """Versions of all installed distributions, by normalized name (lower case, dashes)."""
    return {
        re.sub(r'[-_.]+', '-', dist.name).lower(): dist.version for dist in metadata.distributions()
    }


def stack_of(installed: Mapping[str, str]) -> str:
    """The requirements file of the stack that the installed mmcv belongs to."""
    second = {'mmcv', PURE_MMCV} & set(installed)
    return STACKS[bool(second) and FORKS['mmcv'] not in installed]


def for_stack(sentence: str, requirements: str | Path) -> str:
    """A sentence whose set-up commands are for the stack of a requirements file."""
    if Path(requirements).name != Path(STACKS[1]).name:
        return sentence
    return re.sub(f'{re.escape(SETUP)}(?! --stack)', f'{SETUP} --stack openmmlab', sentence)


def version_of(name: str, installed: Mapping[str, str]) -> str | None:
    """The installed version of a pinned package; mmcv-lite counts as mmcv. None if missing."""
    stand_in = PURE_MMCV if name == 'mmcv' else name
    return installed.get(name.lower().replace('_', '-'), installed.get(stand_in))


def check_versions(pins: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Compares what is installed with the tested versions, and looks for packages that clash.

    Args:
        pins: Tested versions, from `read_pins`.
        installed: Installed versions, from `installed_versions`.

    Returns:
        One sentence for each problem.
    """
    problems = []
    for name, wanted in pins.items():
        # A local label (2.11.0+cu130) names a build of the same release.
        found = (version_of(name, installed) or '').split('+')[0]
        if found != wanted:
            state = f'{name} {found} is installed' if found else f'{name} is not installed'
            problems.append(f'{state}, {wanted} was tested: `{SETUP}` installs it.')
    for old, fork in FORKS.items():
        if old in installed and fork in installed:
            problems.append(
                f'{old} {installed[old]} was installed over {fork} {installed[fork]} and both own '
                f"the same files (mmengine does this when a config says `_base_ = 'mmseg::...'`): "
                f'`{SETUP}` removes the first and repairs the files.'
            )
    pairs = [(PURE_MMCV, 'mmcv'), (PURE_MMCV, FORKS['mmcv'])]
    for one, other in [*pairs, ('opencv-python', 'opencv-python-headless')]:
        if one in installed and other in installed:
            problems.append(
                f'{one} and {other} are both installed and own the same files: `{SETUP}` leaves '
                'one of them.'
            )
    return problems


# -- mmcv's compiled ops --------------------------------------------------------------------------


def has_ops() -> bool:
    """Whether the installed mmcv has its compiled module, be it for this torch or another.

    Only all of MMDetection needs it, already when it is imported.
    """
    package = find_spec('mmcv')
    # find_spec('mmcv._ext') would import mmcv, which takes seconds and may be what is broken.
    return package is not None and bool(
        PathFinder.find_spec('mmcv._ext', package.submodule_search_locations)
    )


def missing_ops(what: str) -> str:
    """The sentence for something that needs ops that are not there; ``what`` is its subject."""
    command = for_stack(f'{SETUP} --ops', stack_of(installed_versions()))
    return (
        f"{what} needs mmcv's compiled ops, and mmcv is installed without: `{command}` compiles "
        'them (8 to 12 minutes on 2 cores).'
    )


def need_ops(what: str) -> None:
    """Refuses to go on without mmcv's ops, before any work is done.

    Raises:
        MissingOpsError: See `missing_ops`.
    """
    if not has_ops():
        raise MissingOpsError(missing_ops(what))


# -- what runs ------------------------------------------------------------------------------------


def explain(what: str, error: BaseException) -> str:
    """One sentence: what failed (``what`` is its subject), the error, the cure."""
    text = f'{type(error).__name__}: {error}'.split('\n')[0]
    if 'transformers' in str(error) or _raised_in(error, 'transformers'):
        cure = (
            'the installed transformers breaks it, and nothing here needs it: '
            f'`HGKD_VENV=DIR {SETUP}` makes an environment without'
        )
    else:
        matches = (cure for pattern, cure in _CURES if re.search(pattern, str(error)))
        cure = next(matches, f'install the tested versions with `{SETUP}`')
    return f'{what} failed ({text}); {cure}.'


def attempt(what: str, check: Callable[[], object]) -> str | None:
    """Runs a check; returns what went wrong as `explain` words it, or None."""
    # Third-party code raises errors of any type, and prints when it is imported.
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check()
    except Exception as error:
        return explain(what, error)
    return None


def run_nms(device: str = 'cpu') -> None:
    """Runs mmcv's non-maximum suppression on three boxes.

    Raises:
        RuntimeError: It keeps the wrong boxes; or any error of mmcv's.
    """
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
    _, keep = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
    if keep.tolist() != [0, 2]:
        raise RuntimeError(f'nms kept boxes {keep.tolist()} where [0, 2] is right')


def build_model(package: str) -> None:
    """Builds one model of an OpenMMLab package; raises whatever is wrong with it."""
    import_module(f'{package}.models')
    import_module(f'{package}.datasets')  # it needs packages that the models do not
    from mmengine.config import Config

    folder = Path(import_module(package).__file__).parent / '.mim/configs/_base_/models'
    config = Config.fromfile(folder / _MODELS[package])
    import_module(f'{package}.registry').MODELS.build({**config.model, '_scope_': package})


def check_running(*, ops: bool) -> list[str]:
    """Imports torchvision, runs an op of mmcv's and builds a model of each package.

    Args:
        ops: mmcv should have its ops; without them the op and mmdet are left out.

    Returns:
        One sentence for each failure; only one if what all others need fails.
    """
    problem = attempt('import torchvision', partial(import_module, 'torchvision'))
    if ops and not problem:
        problem = attempt('mmcv.ops.nms on the CPU', run_nms)
    if problem:
        return [problem]
    packages = [package for package in _MODELS if ops or package != 'mmdet']
    tried = (attempt(f'Building a model of {p}', partial(build_model, p)) for p in packages)
    return [problem for problem in tried if problem]


def notes(*, ops: bool) -> list[str]:
    """Sentences on what works with limits: mmcv without ops, no GPU, ops that fail on the GPU."""
    import torch

    remarks = []
    if not ops:
        remarks.append(
            'mmcv is pure Python, without its compiled ops, which only MMDetection needs: '
            f'`{SETUP} --ops` compiles them.'
        )
    if not torch.cuda.is_available():
        remarks.append('torch sees no CUDA device: everything runs on the CPU.')
    elif ops and (problem := attempt('mmcv.ops.nms on the GPU', partial(run_nms, 'cuda'))):
        remarks.append(
            f'{problem} Pre-training does not use it; Mask R-CNN on the GPU does. Compile mmcv '
            f'where nvcc of CUDA {torch.version.cuda} is found: `{SETUP} --rebuild-mmcv`.'
        )
    return remarks


def unseen_gpus() -> str | None:
    """Says that nvidia-smi lists GPUs which torch does not see, and what to do; None if not so."""
    import torch

    hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    if torch.cuda.is_available() or hidden or not shutil.which('nvidia-smi'):
        return None
    listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, check=False)
    gpus = listed.stdout.count('GPU ')
    if listed.returncode or not gpus:
        return None
    return (
        f'nvidia-smi lists {gpus} GPU(s) and torch sees none: update the driver to the CUDA that '
        f'torch is built for ({torch.version.cuda}; None for the CPU only: `{SETUP}` installs the '
        'tested one).'
    )


def _raised_in(error: BaseException, package: str) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if f'/{package}/' in trace.tb_frame.f_code.co_filename:
            return True
        trace = trace.tb_next
    return False
